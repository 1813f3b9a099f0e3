"""`scripts/fix_imports.py`: what it finds, what it replaces, and that it touches nothing else."""

import codecs
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from scripts.imports.command import ROOT, fix_imports
from scripts.imports.renames import OLD, RENAMES, is_old
from scripts.imports.source import Kind, look


def run(*arguments: str | Path) -> tuple[int, list[str]]:
    ran = CliRunner().invoke(fix_imports, [str(one) for one in arguments], catch_exceptions=False)
    return ran.exit_code, ran.output.splitlines()


def fixed(source: str) -> str:
    return look(source.encode()).fixed.decode()


def found(source: str) -> list[tuple[int, str, Kind]]:
    return [(wrong.line, wrong.what, wrong.kind) for wrong in look(source.encode()).wrong]


MOVES = [
    ("import workers.shared.config\n", "import shared.config\n"),
    ("import workers.shared.config as c, os  # why\n", "import shared.config as c, os  # why\n"),
    ("from backend.workers.shared.config import A, B as b\n", "from shared.config import A, B as b\n"),
    ("from unstract.workers.shared import config as c, health\n", "from shared import config as c, health\n"),
    ("from workers.shared.health import *\n", "from shared.health import *\n"),
    ("from workers.api_deployment import tasks\n", "from api_deployment import tasks\n"),
    (
        "from shared.patterns.retry import utils, backoff as b\n",
        "from shared import retry_utils as utils, retry_utils as b\n",
    ),
    ("from backend.workers.shared import InternalAPIClient\n", "from shared.api_client import InternalAPIClient\n"),
    (
        "def f():\n\tfrom shared.infrastructure.logging.logger import (  # why\n\t\tA,\n\n\t  B as b,)\n",
        "def f():\n\tfrom shared.logging_utils import (  # why\n\t\tA,\n\n\t  B as b,)\n",
    ),
    (
        "try:\n  import workers.shared.health\nexcept ImportError: import workers.shared.config\n",
        "try:\n  import shared.health\nexcept ImportError: import shared.config\n",
    ),
    (
        "import workers.shared.config\n@workers.shared.config.d\nclass A(workers.shared.config.B): ...\n",
        "import shared.config\n@shared.config.d\nclass A(shared.config.B): ...\n",
    ),
    (
        "import workers.shared.config\n((workers.shared.config)\n  # why\n  .x()).y, 'workers.shared.config'\n",
        "import shared.config\n((shared.config)\n  # why\n  .x()).y, 'workers.shared.config'\n",
    ),
    (
        "import workers.shared.config\ndef f(workers): return workers.shared.config, workers\n",
        "import shared.config\ndef f(workers): return workers.shared.config, workers\n",
    ),
    (
        "match x:\n    case 1: from workers.general.tasks import t\n",
        "match x:\n    case 1: from general.tasks import t\n",
    ),
]


@pytest.mark.parametrize(("before", "after"), MOVES)
def test_an_old_path_is_replaced_and_nothing_else(before: str, after: str) -> None:
    assert fixed(before) == after
    assert fixed(after) == after
    assert {kind for _, _, kind in found(before)} == {Kind.MOVED}
    assert found(after) == []


@pytest.mark.parametrize(
    "source",
    [
        "import workers.shared.nothing\nworkers.shared.nothing.x\n",
        "from workers.shared import enums\n",
        "from workers.shared import *\n",
        "from shared import infrastructure\n",
        "from workers.shared import config, enums\n",  # one of the two has no place
        "from workers.shared import InternalAPIClient, config\n",  # they have two places
        "import workers.shared.config\nprint(workers)\n",  # who else would bind it
        "import workers.callback.tasks\ndef f(callback): workers.callback.tasks.x\n",  # the word is in use
        "import workers.shared.config\nfrom app import shared\n",
    ],
)
def test_what_the_table_cannot_replace_is_said_and_left_whole(source: str) -> None:
    assert fixed(source) == source
    assert {kind for _, _, kind in found(source)} == {Kind.UNMAPPED}


def test_each_old_path_is_told_with_its_line() -> None:
    source = "\n\nfrom workers.shared import (\n    config,\n    enums,\n)\nimport django\n"
    assert found(source) == [
        (3, "workers.shared.config", Kind.UNMAPPED),
        (3, "workers.shared.enums", Kind.UNMAPPED),
        (7, "django", Kind.FOREIGN),
    ]


@pytest.mark.parametrize(
    "source",
    [
        b"from ..workers.shared import config\nfrom . import django\nfrom .django import db\n",
        b"import workers_of_mine, djangorestframework\nfrom shared.utilities import x\n",
        b"patch('workers.shared.config')\nimport_module('django.db')\nworkers.shared.config\n",
        b"from shared import config\nimport shared.config\n",
    ],
)
def test_what_only_looks_like_an_old_path_is_left(source: bytes) -> None:
    assert look(source).wrong == []
    assert look(source).fixed == source


@pytest.mark.parametrize(
    "source",
    [
        b"import workers.shared.config\r\nx = 1\r\n",
        b"x = 1\r\nimport workers.shared.config\nif x:\n\ty = 2\r\n",
        codecs.BOM_UTF8 + "é = 'ü'; import workers.shared.config".encode(),
        "# coding: latin-1\n'é'; import workers.shared.config # ü\n".encode("latin-1"),
        b"\x0c\nimport workers.shared.config ; \\\n  y = 1\n  # end",
    ],
)
def test_encoding_and_line_ends_are_kept(source: bytes) -> None:
    assert look(source).fixed == source.replace(b"workers.shared.config", b"shared.config")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (b"import os\nimport workers.shared.config\nprint 1\n", 3),
        (b"\xff\xfe", 1),
        (b"# coding: none-such\n", 1),
        (b"x = '\xe9'\n", 1),
        (b"x=1\rimport workers.shared.config\r", 1),
        (b"import workers.shared.config\n\n  # libcst gives this back with a line less", 1),
        (b"import workers.shared.config\nx = " + b" + ".join([b"workers"] * 600) + b"\n", 1),
    ],
)
def test_what_cannot_be_read_is_said_and_left(source: bytes, line: int) -> None:
    (wrong,) = look(source).wrong
    assert (wrong.line, wrong.kind) == (line, Kind.UNREAD)
    assert look(source).fixed == source


ROWS = st.sampled_from(sorted(RENAMES.items()))
PLACES = st.sampled_from(
    ["import {} as x", "from {} import y", "if x: from {} import (\n  y,  # why\n)", "from {} import *"]
)
OTHERS = st.sampled_from(
    [
        "",
        "import os, sys as s",
        "from . import workers",
        "from shared import config",
        "'workers.shared.config'",
        "# import workers.shared.config",
        "x = '''\n  import workers.shared\n'''",
        "if x :\n\tpass",
        "def f(workers, *, shared = 1) :\n    return workers.shared.config ( )",
        "y = [1 ,\n  2]; del y  ",
    ]
)


@st.composite
def files(draw: st.DrawFn, rows: int) -> tuple[bytes, bytes]:
    """A file with as many old paths, and what is to become of it."""
    lines = [(line, line) for line in draw(st.lists(OTHERS, max_size=8))]
    for _ in range(rows):
        place, (old, target) = draw(PLACES), draw(ROWS)
        lines.insert(draw(st.integers(0, len(lines))), (place.format(old), place.format(target)))
    end, tail, mark = (draw(st.sampled_from(choices)) for choices in (["\n", "\r\n"], ["", "\n"], ["", "\ufeff"]))
    before, after = ((mark + "\n".join(side) + tail).replace("\n", end) for side in zip(("", ""), *lines, strict=True))
    return before.encode(), after.encode()


@given(files(rows=0))
def test_code_without_an_old_path_stays_byte_for_byte_the_same(file: tuple[bytes, bytes]) -> None:
    source, _ = file
    assert look(source).wrong == []
    assert look(source).fixed == source


@given(st.integers(1, 3).flatmap(files))
def test_whatever_row_it_is_and_whatever_stands_round_it(file: tuple[bytes, bytes]) -> None:
    before, after = file
    assert look(before).fixed == after
    assert look(after).wrong == []


def test_every_row_leads_from_what_is_not_ours_to_what_is() -> None:
    for old, target in RENAMES.items():
        assert is_old(old)
        assert not is_old(target)
        module, _, name = target.rpartition(".")
        beside = ROOT.joinpath(*module.split("."))
        assert (beside / f"{name}.py").exists() or f"class {name}(" in beside.with_suffix(".py").read_text()
    places = [ROOT.joinpath(*name.split(".")) for name in OLD]
    assert [path for path in places if path.exists() or path.with_suffix(".py").exists()] == []


FIXED = "files changed: 1; left for you: 0; strings were left alone"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Somebody's code: two modules and a link to a third, and what nobody wants looked at."""
    outside = tmp_path / "outside"
    mine = tmp_path / "mine"
    for name in ("outside", "mine/plugins", "mine/.git", "mine/env", "mine/__pycache__"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "old.py").write_text("import workers.shared.config as c\n")
    (mine / "env/pyvenv.cfg").touch()
    (mine / "linked").symlink_to(outside)
    (mine / "linked.py").symlink_to(outside / "old.py")
    (mine / "left.pyi").write_text("import os\nfrom workers.shared import enums\n")
    return mine


def test_fix_changes_a_tree_and_says_what_is_left(tree: Path) -> None:
    module = tree / "plugins/old.py"
    module.chmod(0o751)
    code, lines = run("--fix", tree)
    assert code == 1
    assert lines[0].startswith(f"{tree}/left.pyi:2: workers.shared.enums → ")
    assert lines[1:] == [f"{module}: changed", "files changed: 1; left for you: 1; strings were left alone"]
    assert module.read_text() == "import shared.config as c\n"
    assert module.stat().st_mode & 0o777 == 0o751
    assert [path.read_text() for path in tree.parent.rglob("old.py")].count("import workers.shared.config as c\n") == 4
    assert list((tree / "plugins").iterdir()) == [module]


def test_a_second_fix_changes_nothing(tree: Path) -> None:
    run("--fix", tree)
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert run("--fix", tree)[1][-1].startswith("files changed: 0; left for you: 1;")
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


def test_check_looks_at_the_trees_it_is_given_and_changes_nothing(tree: Path) -> None:
    code, lines = run("--check", tree, tree / "plugins")
    assert code == 1
    assert lines[1] == f"{tree}/plugins/old.py:1: workers.shared.config → shared.config"
    assert lines[2:] == ["files looked at: 2; wrong: 2"]
    (tree / "left.pyi").unlink()
    assert run("--fix", tree) == (0, [f"{tree}/plugins/old.py: changed", FIXED])
    assert run("--check", tree) == (0, ["files looked at: 1; wrong: 0"])


def test_a_link_that_is_named_stays_a_link(tree: Path) -> None:
    assert run("--fix", tree / "linked.py") == (0, [f"{tree}/linked.py: changed", FIXED])
    assert (tree / "linked.py").is_symlink()
    assert (tree.parent / "outside/old.py").read_text() == "import shared.config as c\n"


def test_a_file_that_cannot_be_written_whole_is_left(tree: Path) -> None:
    module = tree / "plugins/old.py"
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from scripts.imports.trees import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "write_whole(Path(sys.argv[1]), b'x' * 1000)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(module)], capture_output=True, text=True, check=False)
    assert "File too large" in ran.stderr
    assert module.read_text() == "import workers.shared.config as c\n"
    assert list(module.parent.iterdir()) == [module]


def test_what_is_missing_is_said(tree: Path) -> None:
    assert run("--fix")[0] == 2
    assert run(tree)[0] == 2
    assert run("--check", tree / "nowhere")[0] == 2
    script = "import runpy, sys; sys.modules['libcst'] = None; runpy.run_path(sys.argv[1])"
    ran = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "scripts/fix_imports.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == "this needs libcst, which only a checkout has: uv run python scripts/fix_imports.py\n"
