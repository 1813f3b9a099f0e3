"""The seam and the lease on a task's work, in a real worker on a real broker: copies, deaths and thieves."""

import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from celery.worker import state as worker_state

from sandbox.stack import wait_for
from shared.call import Call, WorkerApp
from shared.celery_app import build_app
from shared.claims import Claim, Claims, Lease
from shared.errors import BackendUnavailableError, HandBack, StateStoreError
from shared.task import task
from tests.fakes import ended, one_worker, settings
from tests.integration.test_task_seam import Script

QUEUE = "leases"
MOST_DELIVERIES = 2
TIMES = {
    "TASK_DEADLINE_SECONDS": "1",
    "BATCH_SLICE_SECONDS": "1",
    "INTERNAL_API_TIMEOUT": "0.5",
    "LEASE_SECONDS": "1",
    "MAX_DELIVERIES": str(MOST_DELIVERIES),
}
WORK = Claim("workers:execution:ex", "batch:0", 100)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def app(script: Script, redis_connection: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerApp]:
    """A worker in this process whose one task is always the same piece of work."""

    def leased(call: Call, *args: Any) -> Any:
        return script.run(call, *args)

    def work(_call: Call, /, *_args: Any, **_kwargs: Any) -> Claim:
        return WORK

    module = ModuleType("leased_tasks")
    vars(module)["leased"] = task("leased", finalizer=script.finalize, work=work)(leased)
    monkeypatch.setitem(sys.modules, "leased_tasks", module)
    store = redis_connection.get_connection_kwargs()
    named = {
        "CELERY_BROKER_URL": redis_url,
        "CACHE_REDIS_HOST": store["host"],
        "CACHE_REDIS_PORT": str(store["port"]),
        "CACHE_REDIS_DB": str(store["db"]),
        "CACHE_REDIS_PASSWORD": store["password"] or "",
    }
    app = build_app(one_worker("leases", "leased_tasks", QUEUE), settings(**TIMES, **named))
    with start_worker(app, concurrency=2, pool="threads", perform_ping_check=False, shutdown_timeout=20):
        yield app
    app.resources.close()


class Dying(Claims):
    """A process that takes work and dies."""

    def _renew_always(self) -> None:
        return


@pytest.fixture
def another(redis_connection: Any) -> Iterator[Claims]:
    """Another process, and a living one."""
    claims = Claims(redis_connection, 1)
    yield claims
    claims.close()


def outcomes() -> Callable[[str], float]:
    """How many deliveries have ended so since now."""

    def count(outcome: str) -> float:
        return ended(outcome, "leased")

    before = {name: count(name) for name in ("succeeded", "failed", "retried", "handed_back", "duplicate")}
    return lambda name: count(name) - before[name]


def send(app: WorkerApp) -> None:
    app.send_task("leased", args=[1], queue=QUEUE)


def test_a_second_delivery_of_the_same_work_waits_and_then_has_nothing_to_do(app: WorkerApp, script: Script) -> None:
    both_are_there = threading.Event()

    def meet(_call: Call) -> str:
        assert both_are_there.wait(10)
        return "done"

    script.steps = [meet]
    ended = outcomes()
    send(app)
    send(app)
    wait_for(lambda: len(worker_state.active_requests) == 2, 10, "both deliveries")
    both_are_there.set()
    wait_for(lambda: ended("succeeded") == ended("duplicate") == 1, 10, "both ends")
    assert len(script.deliveries) == 1
    send(app)
    wait_for(lambda: ended("duplicate") == 2, 10, "a copy that comes later")
    assert len(script.deliveries) == 1


def test_work_that_another_is_at_beyond_the_slice_goes_back_to_its_queue(
    app: WorkerApp, script: Script, another: Claims
) -> None:
    held = another.take(WORK)
    assert isinstance(held, Lease)
    script.steps = ["done"]
    ended = outcomes()
    send(app)
    wait_for(lambda: ended("handed_back") == 1, 10, "the end of the slice")
    assert script.deliveries == []
    another.release(held)
    wait_for(lambda: ended("succeeded") == 1, 10, "the delivery after that")
    assert len(script.deliveries) == 1


def test_work_of_a_process_that_died_is_done_by_the_next_delivery(
    app: WorkerApp, script: Script, redis_connection: Any
) -> None:
    assert isinstance(Dying(redis_connection, 0.5).take(WORK), Lease)
    script.steps = ["done"]
    ended = outcomes()
    send(app)
    wait_for(lambda: ended("succeeded") == 1, 10, "the end")
    assert ended("handed_back") == 0


def test_work_that_processes_die_of_ends_in_the_finalizer(
    app: WorkerApp, script: Script, redis_connection: Any
) -> None:
    for _ in range(MOST_DELIVERIES):
        dying = Dying(redis_connection, 0.05)
        assert isinstance(dying.take(WORK), Lease)
        wait_for(lambda one=dying: not one.alive(WORK), 5, "its death")  # type: ignore[misc]
    ended = outcomes()
    send(app)
    wait_for(lambda: ended("failed") == 1, 10, "the end")
    assert script.deliveries == []
    ((reason, args, _),) = script.finals
    assert "2 processes have died while they worked on this" in reason
    assert args == (1,)
    send(app)
    wait_for(lambda: ended("duplicate") == 1, 10, "a copy that comes later")


def test_retries_and_hand_backs_are_no_deaths(app: WorkerApp, script: Script) -> None:
    waits = [BackendUnavailableError("away"), HandBack("the slice is over")] * (MOST_DELIVERIES + 1)
    script.steps = [*waits, "done"]
    ended = outcomes()
    send(app)
    wait_for(lambda: ended("succeeded") == 1, 20, "the end")
    assert (ended("failed"), len(script.deliveries)) == (0, len(waits) + 1)


def test_a_lease_lost_in_the_middle_hands_the_message_back_and_sends_no_request(
    app: WorkerApp, script: Script, another: Claims
) -> None:
    stolen: list[Any] = []

    def be_robbed(call: Call) -> str:
        another._redis.hdel(WORK.keys[0], WORK.what)
        stolen.append(another.take(WORK))
        lease = call.lease
        assert lease is not None
        wait_for(lambda: lease.lost, 5, "the next renewal")
        call.backend("org").execution("ex")  # it would be unreachable, and a retry
        return "written"

    script.steps = [be_robbed]
    ended = outcomes()
    send(app)
    wait_for(lambda: ended("handed_back") >= 1, 10, "the loser's end")
    another.finish(stolen[0])
    wait_for(lambda: ended("duplicate") == 1, 10, "the copy")
    assert (ended("retried"), ended("succeeded"), len(script.deliveries)) == (0, 0, 1)


def test_a_lease_that_cannot_be_asked_for_is_asked_for_again(
    app: WorkerApp, script: Script, redis_connection: Any
) -> None:
    redis_connection.set(WORK.keys[0], "no hash, so that every script on it fails")
    script.steps = ["done"]
    ended = outcomes()
    send(app)
    wait_for(lambda: ended("retried") >= 1, 10, "a retry")
    assert script.deliveries == []
    redis_connection.delete(WORK.keys[0])
    wait_for(lambda: ended("succeeded") == 1, 10, "the end")
    assert len(script.deliveries) == 1


def test_work_whose_finalizer_is_away_is_no_copys_to_drop(app: WorkerApp, script: Script) -> None:
    """Whatever could not be written is still to be done: the next delivery is no duplicate."""
    script.steps = [KeyError("a bug")] * 2
    script.endings = [StateStoreError("away")]
    ended = outcomes()
    send(app)
    wait_for(lambda: ended("failed") == 1, 10, "the end")
    assert (ended("retried"), ended("duplicate"), len(script.finals)) == (1, 0, 1)
