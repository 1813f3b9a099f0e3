"""What is lost, stopped, deleted or late in worker processes: every execution that is known ends, with what is true."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.connection import Connection

from sandbox.driver import Driver, Run
from sandbox.stack import Stack, wait_for
from tests.acceptance.conftest import QUICK, Fleet, started
from tests.acceptance.test_executions import (
    counts,
    documents,
    events,
    everything_completed,
    finish,
    nothing_is_left,
    watch_until_a_file_is,
)
from tests.conftest import emptied_rabbitmq

pytestmark = pytest.mark.timeout(240)

WORKER = "file_processing"
DEADLINE_SECONDS = 10
WATCHFUL = QUICK | {
    "LEASE_SECONDS": "2",
    "STALL_SECONDS": "2",
    "REAPER_INTERVAL_SECONDS": "0.5",
    "FILE_DEADLINE_SECONDS": str(DEADLINE_SECONDS - 1),
    "EXECUTION_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
}


@pytest.fixture(scope="module", params=["rabbitmq"])
def shared() -> Iterator[Fleet]:
    """One fleet for all tests of this module: RabbitMQ is the broker, so that the state store can be lost alone."""
    with emptied_rabbitmq() as url, started(url, **WATCHFUL) as fleet:
        yield fleet


def looked_after(stack: Stack, run: Run) -> list[str]:
    """What the reaper did for an execution."""
    found = events(stack, "callback", "execution_looked_after")
    return [event["action"] for event in found if event["execution_id"] == run.execution_id]


def purge(stack: Stack, queue: str, messages: int) -> None:
    """Lose what waits in a queue, once there is so much."""
    with Connection(stack.broker_url) as connection, connection.channel() as channel:
        wait_for(lambda: channel.queue_declare(queue, passive=True).message_count == messages, 20, "the messages")
        assert channel.queue_purge(queue) == messages


def test_a_lost_batch_is_sent_again_and_a_lost_kick_off_is_nobodys(fleet: Fleet, tmp_path: Path) -> None:
    """Of an execution whose only message is lost nobody here has heard: it stays PENDING."""
    stack, driver = fleet
    deployment = driver.deploy("lost", batches=2)
    sent = documents(tmp_path, 2)
    stack.stop_and_wait("api_deployment")
    unheard = driver.post(deployment, sent)
    purge(stack, "celery_api_deployments", 1)
    stack.restart("api_deployment")
    stack.stop_and_wait(WORKER)
    started = len(events(stack, "api_deployment", "execution_started"))
    run = driver.post(deployment, sent)
    wait_for(lambda: len(events(stack, "api_deployment", "execution_started")) > started, 20, "the fan-out")
    purge(stack, "api_file_processing", 2)
    stack.restart(WORKER)
    everything_completed(driver, deployment, finish(driver, run), sent)
    assert "batches_sent" in looked_after(stack, run)
    unheard.see(driver.control("GET", f"executions/{unheard.execution_id}/"))
    assert unheard.execution["status"] == "PENDING"
    nothing_is_left(stack)


def test_an_execution_past_its_deadline_ends_from_its_rows_and_late_work_changes_nothing(
    fleet: Fleet, tmp_path: Path
) -> None:
    """The backend cannot be written to meanwhile; the worker at the files is frozen, and wakes when all is over."""
    stack, driver = fleet
    deployment = driver.deploy("late", batches=3)
    driver.control("PUT", "switches", {"tool_seconds": 1})
    run = driver.post(deployment, documents(tmp_path, 9))
    watch_until_a_file_is(driver, run, "COMPLETED")
    stack.kill(WORKER, signal.SIGSTOP)
    driver.control("PUT", "switches", {"error_500_seconds": DEADLINE_SECONDS + 2.0})
    try:
        ended = finish(driver, run)
        told = rows(driver, run)
    finally:
        stack.kill(WORKER, signal.SIGCONT)
    assert run.stages["ended"] > DEADLINE_SECONDS
    assert "did not end within 10 s" in ended.execution["error_message"]
    completed = [status for status, _ in told.values()].count("COMPLETED")
    assert counts(ended) == ("COMPLETED", 9, completed, 9 - completed)
    assert 1 <= completed < 9
    assert {status for status, _ in told.values()} == {"COMPLETED", "ERROR"}
    assert {error for status, error in told.values() if status == "ERROR"} == {
        f"the execution did not end within {DEADLINE_SECONDS} s"
    }
    assert "ended" in looked_after(stack, run)
    late = documents(tmp_path, 1)
    after = finish(driver, driver.post(deployment, late))  # behind whatever the woken worker still had to do
    assert counts(after) == ("COMPLETED", 1, 1, 0)
    assert rows(driver, run) == told
    assert counts(run) == counts(ended)
    assert driver.control("GET", "stats")["tool_runs"]["max"] == 1
    nothing_is_left(stack)


def rows(driver: Driver, run: Run) -> dict[str, tuple[str, str]]:
    """How the files of an execution are at the backend, now."""
    run.see(driver.control("GET", f"executions/{run.execution_id}/"))
    return {name: (row["status"], row["execution_error"] or "") for name, row in run.files.items()}


@pytest.mark.parametrize("worker_is_there", [True, False])
def test_of_a_deleted_execution_nothing_is_kept(fleet: Fleet, tmp_path: Path, worker_is_there: bool) -> None:
    """Its batches find out, or else the reaper's callback; no error, and nobody tries for ever."""
    stack, driver = fleet
    deployment = driver.deploy("deleted", batches=2)
    driver.control("PUT", "switches", {"tool_seconds": 0.5})
    run = driver.post(deployment, documents(tmp_path, 20))
    watch_until_a_file_is(driver, run, "EXECUTING")
    if not worker_is_there:
        stack.kill(WORKER, signal.SIGSTOP)
    try:
        assert driver.control("DELETE", f"executions/{run.execution_id}/") == {"deleted": True}
        wait_for(lambda: not kept(stack, run), 30, "the state to be forgotten")
    finally:
        stack.kill(WORKER, signal.SIGCONT)
    nothing_is_left(stack)


def kept(stack: Stack, run: Run) -> list[Any]:
    """What the state store has of an execution that has not ended, but for what it has told the backend."""
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
        found = client.keys(f"*{run.execution_id}*")
    return [key for key in found if not key.endswith(":ended") and not key.startswith("api_results:")]


def test_a_stopped_execution_starts_no_further_file_and_stays_stopped(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    source = tmp_path / "source"
    source.mkdir()
    documents(source, 60)
    wanted = {"organization": "stopped", "workflow_type": "ETL", "name": "stopped", "max_parallel_file_batches": 4}
    made = driver.control(
        "POST", "setup/", wanted | {"source_folder": str(source), "destination_table": "stopped_notes"}
    )
    driver.control("PUT", "switches", {"tool_seconds": 0.5})
    run = driver.start_pipeline(made)
    watch_until_a_file_is(driver, run, "COMPLETED")
    organization, path = made["organization_id"], f"v1/workflow-execution/{run.execution_id}/update_status/"
    driver.internal("POST", path, organization, {"status": "STOPPED"})

    def ended() -> bool:
        pipeline = driver.internal("GET", f"v1/pipeline/{made['pipeline_id']}/", organization)
        return bool(pipeline["pipeline"]["last_run_status"] == "FAILURE")

    wait_for(ended, 30, "the end of the pipeline")
    nothing_is_left(stack)
    rows(driver, run)
    assert run.execution["status"] == "STOPPED"
    stats = driver.control("GET", "stats")
    # Two files a second for the five seconds after which it is looked for, and those that were on their way.
    assert stats["tool_runs"]["total"] <= 30
    assert len(run.files) <= 30
    # The orchestrator's, the callback's, and one look in five seconds, whatever the number of batches.
    assert stats["requests"]["GET v1/workflow-execution/{id}/"] <= 2 + 2


def test_a_state_store_that_loses_everything_in_mid_flight_costs_no_file(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    deployment = driver.deploy("amnesia", batches=3)
    driver.control("PUT", "switches", {"tool_seconds": 0.7})
    sent = documents(tmp_path, 6)
    run = driver.post(deployment, sent)
    watch_until_a_file_is(driver, run, "EXECUTING")
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    assert counts(finish(driver, run)) == ("COMPLETED", 6, 6, 0)
    assert events(stack, WORKER, "execution_registered_again")
    assert driver.control("GET", "stats")["tool_runs"]["max"] == 1
    nothing_is_left(stack)
