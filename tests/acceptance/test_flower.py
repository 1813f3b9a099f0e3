"""Flower beside workers, installed as its image has it: who knows the password sees them, and changes nothing."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from sandbox.stack import FOUR, Stack, free_ports, listens, wait_for
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import documents, finish

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "watcher:the-password-of-this-test"

Ask = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has the group `flower` and nothing else."""
    folder = tmp_path_factory.mktemp("flower")
    uv = shutil.which("uv")
    assert uv is not None
    argv = [uv, "sync", "--quiet", "--only-group", "flower", "--no-install-project"]
    subprocess.run(argv, cwd=ROOT, env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(folder)}, check=True, timeout=120)
    return str(folder / "bin" / "python")


def start_flower(stack: Stack, python: str) -> Ask:
    """Start it with its secrets in files; the answer asks for a page."""
    secrets = {"FLOWER_BASIC_AUTH": PASSWORD, "CELERY_BROKER_URL": stack.broker_url}
    environment = {name: stack.environment()[name] for name in ("PATH", "CACHE_REDIS_HOST")}
    for name, value in secrets.items():
        path = stack.folder / name
        path.write_text(f"{value}\n")
        environment[f"{name}_FILE"] = str(path)
    (port,) = free_ports(1)
    stack.start(
        "flower",
        [python, "-P", "-m", "shared.flower"],
        environment | {"FLOWER_PORT": str(port), "PYTHONPATH": str(ROOT)},
    )
    wait_for(lambda: listens("127.0.0.1", port) or not stack.alive("flower"), 20, "Flower")
    stack.check()

    def ask(method: str, path: str, login: str | None = PASSWORD) -> tuple[int, str]:
        headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
        with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    return ask


@pytest.fixture
def watched(start_fleet: Callable[..., Fleet], broker_url: str | None, python: str) -> tuple[Fleet, Ask]:
    stack, driver = start_fleet(broker_url=broker_url)
    return (stack, driver), start_flower(stack, python)


def seen(ask: Ask, path: str) -> Any:
    status, text = ask("GET", path)
    assert status == 200, text
    return json.loads(text)


def test_it_lists_workers_and_their_tasks_to_who_has_the_password(watched: tuple[Fleet, Ask], tmp_path: Path) -> None:
    (stack, driver), ask = watched
    pages = ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks")
    assert {ask("GET", page, login)[0] for page in pages for login in (None, "watcher:another", ":", "")} == {401}
    assert {ask("GET", page)[0] for page in pages} == {200}
    assert ask("GET", "/healthcheck", None) == (200, "OK")

    nodes = {f"{name}@{os.uname().nodename}" for name in FOUR}
    wait_for(lambda: set(seen(ask, "/api/workers")) == nodes, 20, "every worker to be listed")
    found = seen(ask, f"/api/workers?refresh=true&workername=file_processing@{os.uname().nodename}")
    (worker,) = found.values()
    assert {queue["name"] for queue in worker["active_queues"]} == {"file_processing", "api_file_processing"}
    assert "process_file_batch" in worker["registered"]

    deployment, notes = driver.deploy("watched", batches=1), documents(tmp_path, 1)

    def succeeded() -> set[str]:
        """Of one more execution: workers are asked for their events five seconds after Flower's start."""
        finish(driver, driver.post(deployment, notes))
        return {task["name"] for task in seen(ask, "/api/tasks").values() if task["state"] == "SUCCESS"}

    expected = {"async_execute_bin", "process_file_batch", "process_batch_callback_api"}
    wait_for(lambda: expected <= succeeded(), 20, "its tasks to be listed")

    (name,) = (node for node in nodes if node.startswith("callback"))
    assert ask("POST", f"/api/worker/shutdown/{name}")[0] == 403
    assert ask("POST", "/api/task/send-task/async_execute_bin")[0] == 403
    stack.stop_and_wait("flower")
    del stack.parts["flower"]
    stack.check()


def test_it_shows_no_secret_in_its_log_and_ends_when_it_is_told_to(watched: tuple[Fleet, Ask]) -> None:
    (stack, _), ask = watched
    assert ask("GET", "/broker")[0] == 200
    stack.stop_and_wait("flower", 5)
    said = stack.parts["flower"].said()
    assert "Visit me" in said
    assert "Traceback" not in said
    assert not [secret for secret in (PASSWORD, stack.redis_password, "guest:guest") if secret in said]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "FLOWER_BASIC_AUTH is not set"),
        ({"FLOWER_BASIC_AUTH": "watcher"}, "FLOWER_BASIC_AUTH must be user:password"),
        ({"FLOWER_BASIC_AUTH": "watcher:one,two"}, "FLOWER_BASIC_AUTH must be user:password"),
        ({"FLOWER_BASIC_AUTH_FILE": "/dev/null"}, "FLOWER_BASIC_AUTH is not set"),
    ],
)
def test_without_a_password_it_does_not_start(given: dict[str, str], reason: str, python: str) -> None:
    environment = {
        "CELERY_BROKER_URL": "amqp://127.0.0.1:9//",
        "CACHE_REDIS_HOST": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(
        [python, "-P", "-m", "shared.flower"],
        env=environment | given,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert ran.returncode == 1
    assert reason in ran.stderr
    assert "one,two" not in ran.stderr
