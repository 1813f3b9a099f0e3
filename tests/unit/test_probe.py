"""`python -m shared.probe`: what a container's health check says, against a real server of pages."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from config.workers import PROFILES
from monitoring.server import HealthServer, as_json
from shared.probe import port_of


@pytest.fixture
def port() -> Iterator[int]:
    pages = {
        "/livez": lambda _: as_json({"status": "alive"}),
        "/readyz": lambda _: as_json({"status": "not ready"}, ok=False),
    }
    server = HealthServer("127.0.0.1", 0, pages)
    server.start()
    yield server.port
    server.leave()


def probe(*arguments: str, **variables: object) -> tuple[int, str]:
    environment = {"PATH": "/usr/bin:/bin", **{name: str(value) for name, value in variables.items()}}
    argv = [sys.executable, "-P", "-m", "shared.probe", *arguments]
    ran = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout == ""
    return ran.returncode, ran.stderr.strip()


@pytest.mark.parametrize("name", [*PROFILES, "beat", "monitor"])
def test_a_process_is_asked_where_it_answers(name: str, port: int) -> None:
    variables = {f"{name.upper()}_HEALTH_PORT": port}
    assert probe(name, **variables) == (0, "")
    assert probe(name, "/readyz", **variables) == (1, f'{name}: /readyz answers 503: {{"status": "not ready"}}')


def test_a_fleet_may_have_one_port(port: int) -> None:
    assert probe("general", CELERY_HEALTH_PORT=port) == (0, "")


def test_the_usual_port_is_that_of_the_registry() -> None:
    assert port_of("general") == PROFILES["general"].health_port


def test_what_cannot_be_asked_is_not_well() -> None:
    assert probe("genral")[1].startswith("genral: there is no worker or profile 'genral'; did you mean general")
    assert probe("beat", BEAT_HEALTH_PORT=0) == (1, "beat: it has no health server, since its HEALTH_PORT is 0")
    assert probe("beat", BEAT_HEALTH_PORT=1) == (1, "beat: [Errno 111] Connection refused")
    assert probe("beat", BEAT_HEALTH_PORT="no")[0] == 1


def test_it_starts_without_what_workers_are_made_of() -> None:
    """It is started every few seconds in each container."""
    told = "import sys, shared.probe; print(*sorted({'celery', 'http.client', 'pydantic', 'redis'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"
