"""What a worker process says of itself over HTTP, with both pools, and while what it stands on is away."""

import json
import signal
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from sandbox.stack import Stack, free_ports, wait_for
from shared.call import WorkerApp
from shared.process_health import PAGES, ProcessHealth
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import documents, finish, watch_until_a_file_is

_HANGING = str(Path(__file__).with_name("worker_that_hangs.py"))


def ask(stack: Stack, path: str, profile: str = "all", accept: str = "") -> tuple[int, str]:
    """The status and the body of a page."""
    connection = HTTPConnection("127.0.0.1", stack.health_ports[profile], timeout=8)
    connection.request("GET", path, headers={"Accept": accept})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def status(stack: Stack, path: str, profile: str = "all") -> int:
    return ask(stack, path, profile)[0]


def report(stack: Stack, profile: str = "all") -> Any:
    return json.loads(ask(stack, "/health", profile)[1])


def number(stack: Stack, name: str, profile: str = "all", /, **labels: str) -> float:
    """The sum of the samples of that name with these labels among theirs."""
    samples = (one for family in plain(ask(stack, "/metrics", profile)[1]) for one in family.samples)
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


@pytest.mark.parametrize(
    ("worker", "consumes"),
    [
        (SimpleNamespace(), False),  # before Celery has made its consumer
        (SimpleNamespace(consumer=SimpleNamespace(task_consumer=None)), False),  # it has lost its broker
        (SimpleNamespace(consumer=SimpleNamespace(task_consumer=object())), True),
    ],
)
def test_a_worker_that_does_not_consume_is_not_ready(worker: Any, consumes: bool) -> None:
    """A deployment waits for this before it goes on to the next."""
    stopping = SimpleNamespace(is_set=lambda: False)
    health = ProcessHealth.__new__(ProcessHealth)  # without what it counts in this process
    health._app = cast("WorkerApp", SimpleNamespace(resources=SimpleNamespace(stopping=stopping)))
    health._worker, health._checks = worker, {}
    assert (health.ready().status == 200) is consumes


def test_a_worker_says_how_it_is_and_what_it_does(start_fleet: Callable[..., Fleet], tmp_path: Path) -> None:
    stack, driver = start_fleet("all")
    assert {status(stack, path) for path in PAGES} == {200}
    assert json.loads(ask(stack, "/nothing")[1])["pages"] == sorted(PAGES)
    assert status(stack, "/nothing") == 404
    said = report(stack)
    assert {name: check["ok"] for name, check in said["checks"].items()} == {
        "backend": True,
        "broker": True,
        "state store": True,
    }
    assert (said["profile"], said["pool"], said["slots"], said["running"]) == ("all", "threads", 48, [])

    driver.control("PUT", "switches", {"tool_seconds": 2.0})
    sent = documents(tmp_path, 3)
    run = driver.post(driver.deploy("health", 1), sent)
    watch_until_a_file_is(driver, run, "EXECUTING")
    (running,) = [one for one in report(stack)["running"] if one["task"] == "process_file_batch"]
    assert running["queue"] == "api_file_processing"
    assert 0 <= running["seconds"] < 10
    assert finish(driver, run).execution["status"] == "COMPLETED"

    batch = {"name": "process_file_batch", "queue_name": "api_file_processing"}
    wait_for(lambda: number(stack, "celery_task_succeeded_total", **batch) == 1, 5, "the batch to be counted")
    began = number(stack, "celery_task_started_total", **batch)
    assert began == 1 + number(stack, "workers_task_handed_back_total", **batch)
    assert number(stack, "celery_task_received_total", **batch) == began
    assert number(stack, "celery_task_queue_wait_time_count", **batch) == began
    assert number(stack, "celery_task_runtime_count", **batch) == began
    assert number(stack, "workers_files_total", outcome="succeeded") == 3
    assert number(stack, "workers_pages_total") == 3
    assert number(stack, "workers_executions_total", status="COMPLETED") == 1
    assert number(stack, "workers_execution_duration_seconds_sum", kind="api") > 2
    assert number(stack, "workers_backend_requests_total", outcome="ok", status="2xx") > 10
    assert number(stack, "process_threads") > 5
    assert 0 < number(stack, "workers_memory_limit_ratio") < 1

    shown = "".join(ask(stack, path)[1] for path in ("/livez", "/readyz", "/health", "/version", "/metrics"))
    assert not [secret for secret in (stack.key, stack.redis_password) if secret in shown]
    families = openmetrics(ask(stack, "/metrics", accept="application/openmetrics-text; version=1.0.0")[1])
    assert {"celery_task_runtime", "workers_build_info"} <= {family.name for family in families}


def test_processes_of_a_pool_are_counted_together_however_often_they_are_replaced(
    start_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    pool = {"POOL": "prefork", "CONCURRENCY": "2", "MAX_TASKS_PER_CHILD": "2"}
    stack, driver = start_fleet("all", **{f"ALL_{name}": value for name, value in pool.items()})
    deployment = driver.deploy("pool", 8)
    runs = [driver.post(deployment, documents(tmp_path, 8)) for _ in range(2)]
    for run in runs:
        assert finish(driver, run).execution["status"] == "COMPLETED"
    wait_for(lambda: number(stack, "workers_executions_total") == 2, 5, "both to be counted")
    assert number(stack, "workers_files_total", outcome="succeeded") == 16
    batches = "celery_task_succeeded_total"
    wait_for(lambda: number(stack, batches, name="process_file_batch") == 16, 5, "every batch to be counted")
    assert number(stack, "celery_task_received_total") >= 20  # so children were replaced nine times at least
    assert number(stack, "workers_pool_slots") == 2
    (folder,) = _folders(stack.parts["all"].pid)
    places = {path.stem.rpartition("_")[2] for path in folder.glob("*.db")}
    assert places == {"main", "child0", "child1"}
    assert report(stack)["circuits"] == dict.fromkeys(("records", "bulk", "tools"), "closed")
    stack.stop_and_wait("all")
    assert not folder.exists()


def _folders(pid: int) -> list[Path]:
    """Where a process has its children count, as the kernel lists its mapped files."""
    maps = Path(f"/proc/{pid}/maps").read_text().split()
    return sorted({Path(word).parent for word in maps if word.endswith(".db")})


def test_a_frozen_broker_is_not_ready_and_alive_and_a_hung_loop_is_not() -> None:
    """Side by side, since each takes half a minute: a restart helps the one, and would do harm to the other."""
    with Stack() as stack:
        stack.start_redis()
        stack.start_redis_broker()
        stack.start_backend()
        stack.start_workers("general")
        (stack.health_ports["callback"],) = free_ports(1)
        stack.start(
            "callback",
            [sys.executable, "-P", _HANGING],
            stack.environment(CALLBACK_HEALTH_PORT=str(stack.health_ports["callback"])),
        )
        stack.wait_until_ready()
        wait_for(lambda: status(stack, "/readyz", "general") == 200, 10, "the worker to be ready")
        stack.kill("broker", signal.SIGSTOP)
        stack.kill("callback", signal.SIGWINCH)
        frozen, red, dead = time.monotonic(), 0.0, 0.0
        while time.monotonic() - frozen < 32:
            assert status(stack, "/livez", "general") == 200
            since = time.monotonic() - frozen
            red = red or since * (status(stack, "/readyz", "general") == 503)
            dead = dead or since * (status(stack, "/livez", "callback") == 503)
            time.sleep(0.5)
        assert 0 < red < 20
        assert 0 < dead < 30
        stack.kill("broker", signal.SIGCONT)
        wait_for(lambda: status(stack, "/readyz", "general") == 200, 20, "the worker to be ready again")


def test_a_port_that_is_taken_stops_the_start_with_what_to_do() -> None:
    with Stack() as stack:
        stack.start_redis()
        stack.wait_until_ready()
        part = stack.start(
            "callback",
            [sys.executable, "-P", "-m", "shared", "callback"],
            stack.environment(CALLBACK_HEALTH_PORT=str(stack.redis_port)),
        )
        wait_for(lambda: not stack.alive("callback"), 20, "the worker to end")
        assert f"cannot listen on 127.0.0.1:{stack.redis_port}: Address already in use" in part.tail()
        assert "set CALLBACK_HEALTH_PORT to a free port, or to 0 for none" in part.tail()
