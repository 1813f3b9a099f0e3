"""The monitor as a process beside workers: what it shows, what it leaves alone, and what it says when none answers."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from kombu.connection import Connection
from prometheus_client.parser import text_string_to_metric_families

from config.queue_routing import DEAD_LETTERS, QUEUES
from sandbox.stack import FOUR, Stack, listens, wait_for
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_command_line import BIN, ROOT, WITNESS
from tests.acceptance.test_executions import documents, finish
from tests.integration.test_queue_exporter import declared, publish

QUICK = {"MONITOR_INTERVAL_SECONDS": "0.3"}
Shown = dict[tuple[str, ...], float]


def ask(stack: Stack, path: str, name: str = "monitor") -> tuple[int, str]:
    """The status and the text of a page, which takes less than a second whatever is away."""
    with closing(HTTPConnection("127.0.0.1", stack.health_ports[name], timeout=1)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def shown(stack: Stack) -> Shown:
    """Every number by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(ask(stack, "/metrics")[1])
        for sample in family.samples
    }


def wait_until_shown(stack: Stack, wanted: Shown, seconds: float = 15) -> None:
    wait_for(lambda: wanted.items() <= shown(stack).items(), seconds, f"{wanted}")


def source(name: str) -> tuple[str, ...]:
    return ("workers_monitor_source_ok", name)


def reports(stack: Stack) -> dict[str, object]:
    """What each worker answers to `celery inspect report`."""
    with Celery(broker=stack.broker_url, fixups=[], set_as_current=False) as app:
        found: dict[str, object] = app.control.inspect(timeout=1).report() or {}
        return found


def test_it_shows_what_workers_do_and_takes_nothing(
    start_fleet: Callable[..., Fleet], broker_url: str | None, tmp_path: Path
) -> None:
    stack, driver = start_fleet("all", broker_url=broker_url, BATCH_SLICE_SECONDS="20")
    with Connection(stack.broker_url) as connection, connection.channel() as channel:
        declared(channel, DEAD_LETTERS)
        for at in range(3):
            publish(connection, str(at), DEAD_LETTERS)
    stack.start_beat()
    stack.start_monitor(**QUICK)
    stack.wait_until_ready()
    node = f"all@{os.uname().nodename}"
    alone: Shown = {("celery_worker_up", node): 1.0, ("celery_worker_tasks_active", node): 0.0}
    idle = {("celery_queue_length", queue): 0.0 for queue in QUEUES}
    consumed = {("celery_active_consumer_count", queue): 1.0 for queue in QUEUES}
    wait_until_shown(stack, alone | idle | consumed)
    driver.control("PUT", "switches", {"tool_seconds": 3.0})
    run = driver.post(driver.deploy("watched", batches=2), documents(tmp_path, 2))
    wait_until_shown(stack, {("celery_worker_tasks_active", node): 2.0, ("workers_executions_open",): 1.0})
    if broker_url is None:
        wait_until_shown(stack, {("workers_queue_unacknowledged", "api_file_processing"): 2.0})
    said = reports(stack)[node]
    assert isinstance(said, dict)
    assert {(one["task"], one["queue"], one["execution_id"]) for one in said["running"]} == {
        ("process_file_batch", "api_file_processing", run.execution_id)
    }
    assert said["busy"] == 2
    assert "watched" not in json.dumps(said)  # nothing of the messages
    finish(driver, run)
    wait_until_shown(stack, {("celery_worker_tasks_active", node): 0.0, ("workers_executions_open",): 0.0})
    now = shown(stack)
    assert now["celery_queue_length", DEAD_LETTERS] == 3
    assert now["workers_queue_standstill_seconds", DEAD_LETTERS] > 3
    assert now["workers_queue_standstill_seconds", "celery"] == 0
    assert abs(now["workers_beat_last_tick_timestamp_seconds",] - time.time()) < 8
    assert {name: now[source(name)] for name in ("broker", "workers", "state_store")} == {
        "broker": 1,
        "workers": 1,
        "state_store": 1,
    }
    stack.stop_and_wait("all")
    del stack.parts["all"]
    wait_until_shown(stack, {("celery_worker_up", node): 0.0, ("celery_active_consumer_count", "celery"): 0.0})
    assert ("celery_worker_tasks_active", node) not in shown(stack)
    stack.stop_and_wait("monitor")  # at once, and with its code
    assert "Traceback" not in stack.parts["monitor"].said()
    assert not any(word in stack.parts["monitor"].said() for word in (stack.redis_password, "guest:guest"))


def test_a_frozen_broker_has_no_numbers_until_it_is_back() -> None:
    with Stack() as stack:
        stack.start_redis()
        stack.start_redis_broker()
        stack.wait_until_ready()
        stack.start_monitor(**QUICK)
        stack.wait_until_ready()
        up = {source(name): 1.0 for name in ("broker", "workers", "state_store")}
        wait_until_shown(stack, up | {("celery_queue_length", "celery"): 0.0, ("workers_executions_open",): 0.0})
        assert [ask(stack, path)[0] for path in ("/livez", "/readyz", "/health", "/version")] == [200] * 4
        stack.kill("broker", signal.SIGSTOP)
        wait_until_shown(stack, {source("broker"): 0.0, source("workers"): 0.0, source("state_store"): 1.0})
        now = shown(stack)
        assert not [key for key in now if key[0].startswith(("celery_", "workers_queue_"))]
        assert now["workers_executions_open",] == 0
        assert [ask(stack, path)[0] for path in ("/livez", "/readyz", "/health")] == [200, 200, 503]
        stack.kill("broker", signal.SIGCONT)
        wait_until_shown(stack, up | {("celery_queue_length", "celery"): 0.0})


def test_nothing_that_tasks_need_is_in_it_and_it_needs_no_backend(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    witness = tmp_path / "modules"
    with Stack() as stack:
        stack.start_redis()
        stack.wait_until_ready()
        stack.start_monitor(PYTHONPATH=str(tmp_path), WITNESS=str(witness), **QUICK)
        order = stack.parts["monitor"].order
        needed = {name: value for name, value in order["env"].items() if "INTERNAL" not in name}
        stack.stop_and_wait("monitor")
        part = stack.start("monitor", [str(BIN / "workers"), "monitor"], needed)
        wait_for(lambda: stack.ready("monitor"), 20, "the monitor")
        wait_until_shown(stack, {source("workers"): 1.0})
        os.kill(part.pid, signal.SIGUSR2)
        wait_for(witness.exists, 10, "its list of modules")
    found = {name.partition(".")[0] for name in witness.read_text().splitlines()}
    assert {"celery", "prometheus_client"} <= found
    assert found & {"httpx", "pydantic", "redbeat", "tenacity", "django", *FOUR} == set()


def test_a_start_says_what_is_wrong() -> None:
    said = {"PATH": "", "RABBITMQ_MANAGEMENT_URL": "http://rabbitmq:15672", "MONITOR_INTERVAL_SECONDS": "0"}
    ran = subprocess.run([str(BIN / "workers"), "monitor"], env=said, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert [line.split()[0] for line in ran.stderr.splitlines()] == [
        "workers:",
        "CELERY_BROKER_URL",
        "CACHE_REDIS_HOST",
        "MONITOR_INTERVAL_SECONDS",
        "RABBITMQ_MANAGEMENT_URL",
    ]
    assert "15672" not in ran.stderr


@pytest.mark.matrix
def test_rabbitmq_s_management_api_says_what_is_in_hand_and_a_frozen_node_says_nothing() -> None:
    with Stack() as stack:
        stack.start_redis()
        stack.start_rabbitmq(management=True)
        stack.wait_until_ready(90)
        wait_for(lambda: listens("127.0.0.1", urlsplit(stack.management_url).port or 0), 60, "the management API")
        with Connection(stack.broker_url) as connection, connection.channel() as channel:
            declared(channel)
            for at in range(3):
                publish(connection, str(at))
            stack.start_monitor(RABBITMQ_MANAGEMENT_URL=stack.management_url, **QUICK)
            stack.wait_until_ready()
            wait_until_shown(stack, {source("management"): 1.0, ("celery_queue_length", "celery"): 3.0})
            time.sleep(7)
            standing = shown(stack)
            assert standing["workers_queue_unacknowledged", "celery"] == 0
            assert standing["workers_queue_standstill_seconds", "celery"] > 5
            assert ("celery_queue_length", "scheduler") not in standing  # it does not exist
            message = channel.basic_get("celery")
            publish(connection, "as many as before")
            # Its statistics are five seconds old at the most.
            wait_until_shown(stack, {("workers_queue_unacknowledged", "celery"): 1.0}, 15)
            moved = shown(stack)["workers_queue_standstill_seconds", "celery"]
            assert moved < standing["workers_queue_standstill_seconds", "celery"]
            channel.basic_ack(message.delivery_tag)
        stack.kill("broker", signal.SIGSTOP)
        gone = {source("broker"): 0.0, source("workers"): 0.0, source("management"): 0.0, source("state_store"): 1.0}
        wait_until_shown(stack, gone, 20)
        assert not [key for key in shown(stack) if key[0].startswith(("celery_", "workers_queue_"))]
        stack.kill("broker", signal.SIGCONT)
        wait_until_shown(stack, dict.fromkeys(gone, 1.0) | {("celery_queue_length", "celery"): 3.0}, 30)


@pytest.mark.matrix
def test_the_group_of_dependencies_is_enough(tmp_path: Path) -> None:
    """In an environment that has nothing else."""
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "env")}
    install = ["uv", "sync", "--quiet", "--frozen", "--only-group", "monitor"]
    subprocess.run(install, cwd=ROOT, env=environment, check=True)
    found = {path.name for path in (tmp_path / "env").glob("lib/*/site-packages/*")}
    assert not found & {"httpx", "pydantic", "redbeat", "django"}
    with Stack() as stack:
        stack.start_redis()
        stack.wait_until_ready()
        stack.start_monitor(**QUICK)
        order = stack.parts["monitor"].order
        stack.stop_and_wait("monitor")
        stack.start("monitor", [str(tmp_path / "env/bin/python"), "-m", "shared.monitor"], order["env"])
        wait_for(lambda: stack.ready("monitor"), 20, "the monitor")
        with redis.Redis.from_url(stack.redis_url) as store:
            store.set("workers:beat::tick", 7.0)
        wait_until_shown(stack, {source("broker"): 1.0, ("workers_beat_last_tick_timestamp_seconds",): 7.0})
