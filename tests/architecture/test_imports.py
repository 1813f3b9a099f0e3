"""Who may import whom, and what a running worker has imported."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from config.workers import PROFILES
from scripts.imports.contracts import broken

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_are_kept() -> None:
    assert list(broken(ROOT)) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_a_worker_has_no_django_in_it(profile: str) -> None:
    """Its application is built, and every task registered, in a process where DJANGO_SETTINGS_MODULE is set."""
    script = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('I/O at import')\n"
        "socket.socket.connect = refuse\n"
        "from shared.celery_app import worker_app\n"
        f"app = worker_app({profile!r})\n"
        "app.loader.import_default_modules()\n"
        "print(len(app.tasks), sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "ENVIRONMENT": "development",
        "DJANGO_SETTINGS_MODULE": "sandbox.settings",
        "INTERNAL_API_BASE_URL": "http://127.0.0.1:9/internal",
        "INTERNAL_SERVICE_API_KEY": "unused",
        "CELERY_BROKER_URL": "redis://127.0.0.1:9/0",
        "CACHE_REDIS_HOST": "127.0.0.1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "'celery'" in ran.stdout
    assert "'shared'" in ran.stdout
    for unwanted in ("'django'", "'rest_framework'", "'sandbox'", "'pytest'"):
        assert unwanted not in ran.stdout


def test_the_command_line_imports_no_worker() -> None:
    script = "import sys, scripts.cli; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    for unwanted in ("celery", "httpx", "pydantic", "django", "shared", "sandbox"):
        assert f"'{unwanted}'" not in ran.stdout


@pytest.mark.parametrize(("group", "alone"), [("beat", set()), ("monitor", set()), ("flower", {"flower==2.2.0"})])
def test_what_runs_beside_workers_is_installed_with_the_versions_that_they_have(group: str, alone: set[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["dependency-groups"][group]) - alone < set(project["project"]["dependencies"])
