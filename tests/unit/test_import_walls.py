"""`scripts/fix_imports.py --check` without a path: each wall of the house, really crossed in a small copy of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.imports.command import ROOT

PACKAGES = ("api_deployment", "callback", "config", "file_processing", "general", "monitoring", "sandbox", "shared")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """This project's contracts and command line, over rooms that are empty but for what its contracts name."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    for name in ("shared/api_client.py", "general/webhooks.py"):
        (tmp_path / name).write_text("import httpx\n")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "config/workers.py").write_text("PROFILES = {}\n")
    return tmp_path


def check(house: Path) -> tuple[int, list[str]]:
    ran = subprocess.run(
        [sys.executable, "scripts/fix_imports.py", "--check"],
        cwd=house,
        env={"PYTHONPATH": str(house), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout.splitlines()


WALLS = {
    "Imports run one way": [
        ("shared/up.py", "def later():\n    from general import webhooks\n", 2),
        ("callback/aside.py", "if True:\n    import api_deployment as neighbour\n", 2),
        ("monitoring/up.py", "from shared import (\n    api_client,\n)\n", 1),
    ],
    "config imports nothing of ours": [("config/ours.py", "import monitoring\n", 1)],
    "Nothing imports the sandbox": [("shared/sand.py", "\nfrom sandbox import *\n", 2)],
    "The command line starts workers": [("scripts/commands/direct.py", "import callback\n", 1)],
    "Nothing imports Django": [
        ("shared/orm.py", "from django.db import models as m\n", 1),
        ("file_processing/through.py", "from shared import orm\n", 1),
    ],
    "Only shared.api_client and general.webhooks import httpx": [
        ("callback/http.py", "try:\n    import httpx\nfinally: ...\n", 2)
    ],
}


def test_each_wall_that_is_crossed_is_named_with_its_remedy(house: Path) -> None:
    for crossings in WALLS.values():
        for name, source, _ in crossings:
            (house / name).write_text(source)
    code, lines = check(house)
    assert code == 1
    for contract, crossings in WALLS.items():
        for name, _, line in crossings:
            said = [one for one in lines if one.startswith(f"{name}:{line}: ") and contract in one]
            assert said, (contract, name, lines)
            assert all(one.rpartition(" → ")[2] for one in said)


def test_a_house_whose_walls_stand_is_passed_with_a_count(house: Path) -> None:
    (house / "sandbox/models.py").write_text("from django.db import models\nimport rest_framework\n")
    assert check(house) == (0, [f"files looked at: {len(list(house.rglob('*.py')))}; wrong: 0"])


def test_a_file_that_cannot_be_parsed_stops_nothing_else(house: Path) -> None:
    (house / "shared/torn.py").write_text("import os\n\ndef half(:\n")
    (house / "shared/orm.py").write_text("import django.db\n")
    code, lines = check(house)
    assert code == 1
    assert any(line.startswith("shared/torn.py:3: cannot be parsed: a syntax error → ") for line in lines)
    assert any(line.startswith("shared/orm.py:1: django.db → ") for line in lines)
    assert any("no contract was looked at" in line for line in lines)
