"""Deaths and broken connections in the middle of work, on RabbitMQ: every effect once, and nothing is left behind."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kombu.connection import Connection

from config.workers import PROFILES
from sandbox.driver import Driver, Run
from sandbox.stack import Stack, wait_for
from tests.acceptance.conftest import BACKEND, QUICK, Fleet
from tests.acceptance.test_executions import (
    counts,
    documents,
    events,
    everything_completed,
    finish,
    nothing_is_left,
    pending_execution,
    publish,
)
from tests.conftest import emptied_rabbitmq
from tests.proxy import Proxy, proxied

pytestmark = pytest.mark.timeout(240)

WORKER = "file_processing"
# The reaper is not what helps here: it looks after ten minutes. A Redis broker gives a dead worker's message out again
# after its visibility timeout, which these times must be below.
MORTAL = QUICK | {
    "LEASE_SECONDS": "2",
    "MAX_DELIVERIES": "2",
    "BROKER_VISIBILITY_TIMEOUT": "6",
    "TASK_DEADLINE_SECONDS": "5",
    "DRAIN_SECONDS": "1",
}


@pytest.fixture(
    scope="module",
    params=[
        "rabbitmq-threads",
        pytest.param("rabbitmq-prefork", marks=pytest.mark.matrix),
        pytest.param("redis-threads", marks=pytest.mark.matrix),
        pytest.param("redis-prefork", marks=pytest.mark.matrix),
    ],
)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which broker, and which pool the file worker has."""
    name, pool = request.param.split("-")
    return name, pool


@pytest.fixture(scope="module")
def broker(kind: tuple[str, str]) -> Iterator[Proxy]:
    """The broker, as everybody sees it."""
    with ExitStack() as held:
        if kind[0] == "rabbitmq":
            url = held.enter_context(emptied_rabbitmq())
        else:
            stack = held.enter_context(Stack())
            stack.start_redis()
            stack.wait_until_ready()
            url = stack.redis_url
        yield held.enter_context(proxied(url))


@pytest.fixture(scope="module")
def workers_broker(broker: Proxy) -> Iterator[Proxy]:
    """The same, as the file worker sees it."""
    with proxied(broker.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared(broker: Proxy, workers_broker: Proxy, kind: tuple[str, str]) -> Iterator[Fleet]:
    """One fleet for all tests of this module."""
    with Stack(broker.url) as stack:
        stack.start_redis()
        stack.start_backend(**BACKEND)
        stack.start_workers("api_deployment", "callback", **MORTAL)
        # One slot, so that a batch waits until the one before it is done.
        argv = [sys.executable, "-P", "-m", "shared", WORKER, "--concurrency", "1", "--pool", kind[1]]
        stack.start(WORKER, argv, stack.environment(**MORTAL, CELERY_BROKER_URL=workers_broker.url))
        stack.wait_until_ready()
        with Driver(stack) as driver:
            yield stack, driver


@pytest.fixture
def on_rabbitmq(kind: tuple[str, str]) -> None:
    """What was not shown on a Redis broker, or cannot be.

    It forgets what it sent to a process that did not read it, which the reaper mends; and a connection to it that
    breaks ends the process (Celery 5.7), which its supervisor starts again.
    """
    if kind[0] == "redis":
        pytest.skip("shown on RabbitMQ alone; see test_brokers.py")


def held(driver: Driver, switch: str, times: int = 1) -> None:
    """Wait until so many requests were held."""

    def seen() -> int:
        injected: dict[str, int] = driver.control("GET", "stats")["injected"]
        return injected.get(switch, 0)

    wait_for(lambda: seen() >= times, 30, f"{switch} {times} times")


def completed(run: Run) -> int:
    return sum(row["status"] == "COMPLETED" for row in run.files.values())


def notifications(driver: Driver) -> tuple[int, int]:
    """How many were told, and how many of them again."""
    told = driver.control("GET", "stats")["notifications"]
    return told["enqueued"], told["duplicates"]


def messages_left(stack: Stack) -> int:
    """Messages that wait in any queue."""
    with Connection(stack.broker_url) as connection, connection.channel() as channel:
        return sum(channel.queue_declare(name, passive=True).message_count for name in consumed(stack))


def consumed(stack: Stack) -> list[str]:
    return [queue for name in stack.parts if name in PROFILES for queue in PROFILES[name].queues]


def start_again(stack: Stack, driver: Driver) -> None:
    """Kill the file worker where it is; the next one finds the backend in fair weather."""
    stack.kill(WORKER)
    driver.control("PUT", "switches", {"reset": True})
    stack.restart(WORKER)


def one_end(stack: Stack, run: Run) -> None:
    """One callback ended the execution, however many there were."""
    ends = [end for end in events(stack, "callback", "execution_ended") if end["execution_id"] == run.execution_id]
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("name", "switch", "request_"),
    [
        ("claimed", "hold_request", "POST /internal/v1/file-execution/"),
        ("writing", "hold_answer", "/workflow-manager/execute-file/"),
        ("written", "hold_request", "/status/"),
        ("told", "hold_answer", "/status/"),
    ],
)
def test_a_worker_killed_at_any_point_leaves_work_that_is_done_once(
    fleet: Fleet, tmp_path: Path, name: str, switch: str, request_: str
) -> None:
    """After its claim, while the tools have run and not said so, before the file's status, after it."""
    stack, driver = fleet
    deployment = driver.deploy(name, batches=1)
    driver.control("PUT", "switches", {switch: request_})
    sent = documents(tmp_path, 2)
    run = driver.post(deployment, sent)
    held(driver, switch)
    start_again(stack, driver)
    everything_completed(driver, deployment, finish(driver, run), sent)
    one_end(stack, run)
    nothing_is_left(stack)


@pytest.mark.usefixtures("on_rabbitmq")
def test_a_worker_killed_before_its_claim_leaves_the_message(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    deployment = driver.deploy("unclaimed", batches=1)
    stack.kill(WORKER, signal.SIGSTOP)
    sent = documents(tmp_path, 2)
    started = len(events(stack, "api_deployment", "execution_started"))
    run = driver.post(deployment, sent)
    wait_for(lambda: len(events(stack, "api_deployment", "execution_started")) > started, 20, "the fan-out")
    wait_for(lambda: messages_left(stack) == 0, 20, "the batch to be delivered")
    start_again(stack, driver)
    everything_completed(driver, deployment, finish(driver, run), sent)
    one_end(stack, run)


@pytest.mark.usefixtures("on_rabbitmq")
def test_a_worker_killed_before_its_acknowledgement_leaves_a_copy_that_does_nothing(
    fleet: Fleet, workers_broker: Proxy, tmp_path: Path
) -> None:
    stack, driver = fleet
    deployment = driver.deploy("unacknowledged", batches=1)
    before = len(events(stack, WORKER, "task_ended"))
    workers_broker.deaf_after = b"process_batch_callback_api"
    sent = documents(tmp_path, 2)
    run = finish(driver, driver.post(deployment, sent))
    wait_for(lambda: len(events(stack, WORKER, "task_ended")) > before, 20, "the end of the batch")
    start_again(stack, driver)
    wait_for(lambda: len(events(stack, WORKER, "task_ended")) == before + 2, 30, "the copy")
    assert [end["outcome"] for end in events(stack, WORKER, "task_ended")[before:]] == ["succeeded", "duplicate"]
    everything_completed(driver, deployment, run, sent)
    one_end(stack, run)
    nothing_is_left(stack)


@pytest.mark.usefixtures("on_rabbitmq")
def test_connections_that_break_under_overlapping_batches_repeat_nothing(
    fleet: Fleet, broker: Proxy, tmp_path: Path
) -> None:
    stack, driver = fleet
    deployment = driver.deploy("broken", batches=3)
    driver.control("PUT", "switches", {"tool_seconds": 0.4})
    sent = documents(tmp_path, 9)
    run = driver.post(deployment, sent)
    for done in (1, 5):
        next(seen for seen in driver.watch(run) if completed(seen) >= done)
        assert broker.cut() > 0
    everything_completed(driver, deployment, finish(driver, run), sent)
    one_end(stack, run)
    wait_for(lambda: messages_left(stack) == 0, 30, "the copies to end")
    nothing_is_left(stack)


@pytest.mark.usefixtures("on_rabbitmq")
def test_a_batch_that_kills_whoever_takes_it_is_given_up_and_the_others_go_on(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    deployment = driver.deploy("poison", batches=2)
    driver.control("PUT", "switches", {"hold_request": "POST /internal/v1/file-execution/"})
    run = driver.post(deployment, documents(tmp_path, 2))
    for deaths in (1, 2):
        held(driver, "hold_request", deaths)
        stack.kill(WORKER)
        if deaths == 2:
            driver.control("PUT", "switches", {"reset": True})
        stack.restart(WORKER)
    assert counts(finish(driver, run)) == ("COMPLETED", 2, 1, 1)
    errors = [row["execution_error"] for row in run.files.values() if row["status"] == "ERROR"]
    assert len(errors) == 1
    assert "2 processes have died while they worked on this" in errors[0]
    results = driver.results(deployment, run)
    assert sorted(item["status"] for item in results.values()) == ["Failed", "Success"]
    nothing_is_left(stack)


@pytest.mark.usefixtures("on_rabbitmq")
def test_a_kick_off_delivered_twice_at_once_starts_one_set_of_batches(fleet: Fleet) -> None:
    stack, driver = fleet
    made, run = pending_execution(driver, "twice")
    driver.control("PUT", "switches", {"tool": "echo"})
    files = {f"{number}.txt": {"file_name": f"{number}.txt"} for number in range(4)}
    started = len(events(stack, "api_deployment", "execution_started"))
    args = [made["organization_id"], made["workflow_id"], run.execution_id, files]
    stack.kill("api_deployment", signal.SIGSTOP)
    for _ in range(2):
        publish(stack, "async_execute_bin", "celery_api_deployments", args)
    stack.kill("api_deployment", signal.SIGCONT)
    assert counts(finish(driver, run)) == ("COMPLETED", 4, 4, 0)
    assert len(events(stack, "api_deployment", "execution_started")) == started + 1
    stats = driver.control("GET", "stats")
    assert (stats["tool_runs"]["total"], stats["tool_runs"]["max"]) == (4, 1)
    one_end(stack, run)


@pytest.mark.usefixtures("on_rabbitmq")
def test_a_callback_killed_between_its_write_and_the_rest_is_finished_by_the_next(fleet: Fleet) -> None:
    """The finalizing write is committed, and nobody heard of it; the notifications are still to come."""
    stack, driver = fleet
    made, run = pending_execution(driver, "unheard")
    wanted = {"organization": "unheard", "workflow_type": "API", "name": "unheard"}
    driver.control("POST", "setup/", wanted | {"notifications": [{"url": "http://127.0.0.1:1/hook"}]})
    driver.control("PUT", "switches", {"hold_answer": "update_status/"})
    named = {"execution_id": run.execution_id, "organization_id": made["organization_id"]}
    named["pipeline_id"] = made["api_deployment_id"]
    for _ in range(2):  # and it is delivered twice
        publish(stack, "process_batch_callback_api", "api_file_processing_callback", [[]], named)
    held(driver, "hold_answer")
    os.kill(stack.parts["callback"].pid, signal.SIGKILL)
    driver.control("PUT", "switches", {"reset": True})
    stack.restart("callback")
    assert counts(finish(driver, run)) == ("COMPLETED", 0, 0, 0)
    wait_for(lambda: notifications(driver) == (1, 0), 30, "the notification")
    wait_for(lambda: messages_left(stack) == 0, 30, "the copy")
    nothing_is_left(stack)
    assert notifications(driver) == (1, 0)


@pytest.mark.usefixtures("on_rabbitmq")
def test_the_answer_to_the_finalizing_write_never_comes(fleet: Fleet, tmp_path: Path) -> None:
    """The status is found written by the next delivery, and is not written again."""
    stack, driver = fleet
    deployment = driver.deploy("unanswered", batches=2)
    driver.control("PUT", "switches", {"tool_seconds": 0.5})
    sent = documents(tmp_path, 2)
    run = driver.post(deployment, sent)
    next(seen for seen in driver.watch(run) if seen.execution["status"] == "EXECUTING")
    driver.control("PUT", "switches", {"hold_answer": "update_status/"})
    everything_completed(driver, deployment, finish(driver, run), sent)
    nothing_is_left(stack)
    assert driver.control("GET", "stats")["injected"] == {"hold_answer": 1}
