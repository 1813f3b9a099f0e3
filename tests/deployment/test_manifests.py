"""scripts/manifests.py notices what is not as the registry says; Railway's files; and all YAML as yamllint has it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from config.queue_routing import QUEUES
from config.workers import DRAIN_SECONDS, GRACE_SECONDS, LAYOUTS, WORKERS
from tests.deployment.manifests import ROOT

RAILWAY = {path.stem: json.loads(path.read_text()) for path in (ROOT / "docker" / "railway").iterdir()}
# https://docs.railway.com/config-as-code/reference, and `numReplicas` of its schema. Numbers must be numbers there.
KNOWN: dict[str, dict[str, Any]] = {
    "build": {
        "builder": {"RAILPACK", "DOCKERFILE", "NIXPACKS"},
        "watchPatterns": list,
        "buildCommand": str,
        "dockerfilePath": str,
    },
    "deploy": {
        "startCommand": str,
        "preDeployCommand": list,
        "numReplicas": int,
        "multiRegionConfig": dict,
        "healthcheckPath": str,
        "healthcheckTimeout": int,
        "restartPolicyType": {"ON_FAILURE", "ALWAYS", "NEVER"},
        "restartPolicyMaxRetries": int,
        "cronSchedule": str,
        "overlapSeconds": int,
        "drainingSeconds": int,
    },
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of all that the generator reads and writes."""
    for name in ("config", "scripts", "docker"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "monitoring").mkdir()
    shutil.copy(ROOT / "monitoring" / "alerts.yml", tmp_path / "monitoring")
    return tmp_path


def run(tree: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(tree / "scripts" / "manifests.py"), *argv]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_files_are_what_the_registry_says() -> None:
    """If not: uv run python scripts/manifests.py."""
    checked = run(ROOT, "--check")
    assert checked.returncode == 0, checked.stderr


BASE, COMPONENTS = "docker/kubernetes/base", "docker/kubernetes/components"
CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "a port of the registry": (
        lambda tree: replaced(tree / "config" / "workers.py", "health_port=8081", "health_port=9081"),
        {f"{BASE}/general.yaml"},
    ),
    "how many replicas there may be": (
        lambda tree: replaced(tree / "config" / "workers.py", "most=10", "most=11"),
        {f"{COMPONENTS}/autoscaling/file-processing.yaml"},
    ),
    "the grace of a stop": (
        lambda tree: replaced(tree / "config" / "workers.py", "GRACE_SECONDS = 30", "GRACE_SECONDS = 31"),
        {
            *(f"{BASE}/{name.replace('_', '-')}.yaml" for name in (*WORKERS, "beat", "monitor")),
            *(f"{COMPONENTS}/autoscaling/{name.replace('_', '-')}.yaml" for name in WORKERS),
            "docker/railway/fast.json",
            "docker/railway/slow.json",
        },
    ),
    "an alert": (
        lambda tree: replaced(tree / "monitoring" / "alerts.yml", "severity: page", "severity: loud"),
        {f"{COMPONENTS}/prometheus-operator/prometheusrule.yaml"},
    ),
    "an edit by hand": (
        lambda tree: replaced(tree / BASE / "beat.yaml", "type: Recreate", "type: RollingUpdate"),
        {f"{BASE}/beat.yaml"},
    ),
    "a file that is left over": (
        lambda tree: shutil.copy(tree / BASE / "general.yaml", tree / BASE / "renamed.yaml"),
        {f"{BASE}/renamed.yaml"},
    ),
    "a service that is left over": (
        lambda tree: shutil.copy(tree / "docker/railway/fast.json", tree / "docker/railway/quick.json"),
        {"docker/railway/quick.json"},
    ),
    "a file that is gone": (
        lambda tree: (tree / "docker/railway/slow.json").unlink(),
        {"docker/railway/slow.json"},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed_and_made_good(tree: Path, change: str) -> None:
    make, stale = CHANGES[change]
    make(tree)
    before = {path: path.read_bytes() for path in (tree / "docker").rglob("*") if path.is_file()}
    checked = run(tree, "--check")
    assert checked.returncode == 1
    names, _, remedy = checked.stderr.strip().partition(": ")
    assert set(names.split(", ")) == stale
    assert "uv run python scripts/manifests.py" in remedy
    assert {path: path.read_bytes() for path in (tree / "docker").rglob("*") if path.is_file()} == before
    assert run(tree).returncode == 0
    assert run(tree, "--check").returncode == 0


def test_what_people_edit_is_left_alone(tree: Path) -> None:
    settings = tree / "docker/kubernetes/overlays/staging/settings.env"
    settings.write_text("CACHE_REDIS_HOST=mine\n")
    assert run(tree).returncode == 0
    assert settings.read_text() == "CACHE_REDIS_HOST=mine\n"


def test_generated_files_say_so() -> None:
    for path in (*(ROOT / BASE).iterdir(), *(ROOT / COMPONENTS).rglob("*.yaml")):
        assert path.read_text().startswith("# Made by scripts/manifests.py from config/workers.py\n")


@pytest.mark.parametrize("service", RAILWAY)
def test_railway_knows_every_field(service: str) -> None:
    config = RAILWAY[service]
    assert config.pop("$schema") == "https://railway.com/railway.schema.json"
    assert config.keys() == KNOWN.keys()
    for section, fields in config.items():
        for name, value in fields.items():
            kind = KNOWN[section][name]
            assert value in kind if isinstance(kind, set) else isinstance(value, kind), name


def test_railway_runs_the_profiles_that_have_every_queue() -> None:
    started = {config["deploy"]["startCommand"] for config in RAILWAY.values()}
    assert started == {f"workers run {profile.name}" for profile in LAYOUTS["fast-slow"]}
    assert {queue for profile in LAYOUTS["fast-slow"] for queue in profile.queues} == set(QUEUES)
    for config in RAILWAY.values():
        assert config["deploy"]["drainingSeconds"] == GRACE_SECONDS > DRAIN_SECONDS
        assert config["deploy"]["healthcheckPath"] == "/readyz"
        image = config["build"]["dockerfilePath"].removeprefix("docker/").removesuffix(".Dockerfile")
        assert image in WORKERS


LINT = YamlLintConfig(file=str(ROOT / "docker" / ".yamllint"))
YAML = sorted((ROOT / "docker").rglob("*.yaml"))


def test_yaml_is_as_yamllint_has_it() -> None:
    assert YAML
    assert [f"{path}: {found}" for path in YAML for found in linter.run(path.read_text(), LINT)] == []


def test_a_key_that_stands_twice_is_noticed() -> None:
    assert list(linter.run("---\nkind: A\nkind: B\n", LINT))
