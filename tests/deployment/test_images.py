"""The Dockerfiles and what they install: alike where layers are to be shared, and in step with pyproject.toml."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.workers import WORKERS

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
OURS = (*WORKERS, "beat", "monitor")
ALL = sorted(path.name.partition(".")[0] for path in DOCKER.glob("*.Dockerfile"))


def text(name: str) -> str:
    return (DOCKER / f"{name}.Dockerfile").read_text()


def instruction(name: str, word: str) -> str:
    """The last one of that word, in one line."""
    lines = text(name).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(f"{word} ")][-1]


def test_every_process_of_the_registry_has_an_image() -> None:
    assert sorted([*OURS, "backend", "flower"]) == ALL


def test_images_differ_in_nothing_but_what_they_are() -> None:
    common = set()
    for name in OURS:
        about = re.search(r'description="(.*)"', text(name))
        assert about is not None
        same = text(name).replace(about[1], "ABOUT").replace(name.replace("_", "-"), "NAME").replace(name, "NAME")
        common.add(same.replace('CMD ["run", "NAME"]', "CMD").replace('CMD ["NAME"]', "CMD"))
    assert len(common) == 1


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_unprivileged_and_needs_no_shell(name: str) -> None:
    assert instruction(name, "USER") == "USER 10001:10001"
    json.loads(instruction(name, "ENTRYPOINT").removeprefix("ENTRYPOINT "))
    json.loads(instruction(name, "HEALTHCHECK").partition(" CMD ")[2])
    assert "uv" not in text(name).rpartition("\nFROM ")[2]  # nor what builds it


@pytest.mark.parametrize("name", OURS)
def test_an_image_runs_its_process_and_asks_it_for_its_health(name: str) -> None:
    command = json.loads(instruction(name, "CMD").removeprefix("CMD "))
    assert command == (["run", name] if name in WORKERS else [name])
    assert instruction(name, "HEALTHCHECK").endswith(f'["python", "-P", "-m", "shared.probe", "{name}"]')


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run([hadolint, *DOCKER.glob("*.Dockerfile")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize("name", ALL)
def test_what_is_installed_is_exact_and_without_addresses(name: str) -> None:
    lines = (DOCKER / "requirements" / f"{name}.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith(("#", " "))]
    assert packages
    assert all(re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+ (;.* )?\\$", line) for line in packages)
    assert all(line.strip().startswith("--hash=sha256:") for line in lines if line.startswith(" "))


def test_the_scheduler_has_nothing_of_the_workers() -> None:
    said = (DOCKER / "requirements" / "beat.txt").read_text()
    assert "celery-redbeat==" in said
    assert not re.search(r"^(httpx|pydantic|prometheus-client|structlog)==", said, re.M)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """What the script reads, where it can be changed."""
    for name in ("config", "scripts", "docker/requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def requirements(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", str(root / "scripts" / "requirements.py"), *options]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(root)}
    uv = shutil.which("uv")
    assert uv is not None
    environment["PATH"] += f":{Path(uv).parent}"
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_requirements_are_in_step_with_the_project(copied: Path) -> None:
    ran = requirements(copied, "--check")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_requirements_that_are_not_are_named_and_written(copied: Path) -> None:
    folder = copied / "docker" / "requirements"
    beat = (folder / "beat.txt").read_text()
    (folder / "beat.txt").write_text(beat.replace("amqp==", "amqp==0."))
    (folder / "nobody.txt").write_text("")
    ran = requirements(copied, "--check")
    assert ran.returncode == 1
    assert ran.stderr.startswith("beat.txt, nobody.txt: not as pyproject.toml says")
    assert requirements(copied).returncode == 0
    assert (folder / "beat.txt").read_text() == beat
    assert not (folder / "nobody.txt").exists()
