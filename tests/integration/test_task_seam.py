"""The seam round every task, in a real worker on a real broker: how each kind of error ends."""

import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
from celery.canvas import Signature
from celery.contrib.testing.worker import start_worker

from sandbox.stack import wait_for
from shared.call import Call, WorkerApp
from shared.celery_app import build_app
from shared.errors import (
    BackendRefusedError,
    BackendUnavailableError,
    CircuitOpenError,
    DeadlineExceededError,
    HandBack,
    PayloadError,
    StateStoreError,
)
from shared.task import task
from shared.task_metrics import SENT_AT
from tests.fakes import ended, one_worker, settings

QUEUE = "seam"
TIMES = {"TASK_DEADLINE_SECONDS": "1", "BATCH_SLICE_SECONDS": "1", "INTERNAL_API_TIMEOUT": "0.5"}


class Script:
    """A task that does what its test wrote: each delivery takes the next step, an error or a value."""

    def __init__(self) -> None:
        self.steps: Sequence[Exception | str | Callable[[Call], str]] = []
        self.endings: list[Exception] = []
        self.deliveries: list[tuple[Any, ...]] = []
        self.finals: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def run(self, call: Call, *args: Any) -> Any:
        headers = {name: value for name, value in call.headers.items() if name != SENT_AT}
        self.deliveries.append((call.task_id, call.queue, headers, args))
        step, *self.steps = self.steps
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, str) else step(call)

    def finalize(self, _call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None:
        if self.endings:
            raise self.endings.pop(0)
        self.finals.append((str(error), args, kwargs))


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def patience() -> float:
    return 1.5


@pytest.fixture
def app(script: Script, redis_url: str, patience: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerApp]:
    """A worker in this process whose one task follows the script."""

    def scripted(call: Call, *args: Any) -> Any:
        return script.run(call, *args)

    module = ModuleType("scripted_tasks")
    vars(module)["scripted"] = task("scripted", finalizer=script.finalize, patience=patience)(scripted)
    monkeypatch.setitem(sys.modules, "scripted_tasks", module)
    app = build_app(one_worker("seam", "scripted_tasks", QUEUE), settings(**TIMES, CELERY_BROKER_URL=redis_url))
    with start_worker(app, pool="threads", perform_ping_check=False, shutdown_timeout=20):
        yield app


def outcomes() -> Callable[[str], float]:
    """How many deliveries have ended so since now."""

    def count(outcome: str) -> float:
        return ended(outcome, "scripted")

    before = {name: count(name) for name in ("succeeded", "failed", "retried", "handed_back")}
    return lambda name: count(name) - before[name]


def send(app: WorkerApp, *args: Any) -> None:
    app.send_task("scripted", args=args, queue=QUEUE, headers={"place": 3}, task_id="the-task")


def test_a_transient_error_is_retried_with_everything_it_came_with(app: WorkerApp, script: Script) -> None:
    script.steps = [BackendUnavailableError("away"), StateStoreError("away"), "done"]
    ended = outcomes()
    send(app, 1, "two")
    wait_for(lambda: ended("succeeded") == 1, 20, "the third delivery")
    assert ended("retried") == 2
    tried = script.deliveries[1][2]["first_tried"]
    assert script.deliveries == [
        ("the-task", QUEUE, {"place": 3}, (1, "two")),
        *[("the-task", QUEUE, {"place": 3, "first_tried": tried, "request_id": "the-task"}, (1, "two"))] * 2,
    ]
    assert script.finals == []


def test_a_transient_error_that_stays_ends_in_the_finalizer(app: WorkerApp, script: Script) -> None:
    script.steps = [BackendUnavailableError("away") for _ in range(100)]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("failed") == 1, 60, "the end of its patience")
    assert ended("retried") >= 2
    assert script.finals == [("away", (1,), {})]


@pytest.mark.parametrize("error", [PayloadError("nonsense"), KeyError("a bug")])
def test_any_other_error_ends_at_once(app: WorkerApp, script: Script, error: Exception) -> None:
    script.steps = [error]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("failed") == 1, 20, "the end")
    assert script.finals == [(str(error), (1,), {})]
    assert len(script.deliveries) == 1


def test_a_finalizer_that_cannot_be_reached_is_tried_until_it_can(app: WorkerApp, script: Script) -> None:
    script.steps = [PayloadError("nonsense")] * 3
    script.endings = [StateStoreError("away"), StateStoreError("away")]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: len(script.finals) == 1, 20, "the finalizer")
    wait_for(lambda: ended("failed") + ended("retried") == 3, 20, "three ends")
    assert script.finals == [("nonsense", (1,), {})]


def test_a_hand_back_is_no_retry_and_loses_nothing(app: WorkerApp, script: Script) -> None:
    script.steps = [*[HandBack("the slice is over")] * 7, "done"]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("succeeded") == 1, 20, "the last delivery")
    assert ended("handed_back") == 7
    tried = script.deliveries[1][2]["first_tried"]
    assert script.deliveries == [
        ("the-task", QUEUE, {"place": 3}, (1,)),
        *[("the-task", QUEUE, {"place": 3, "first_tried": tried, "request_id": "the-task"}, (1,))] * 7,
    ]


def test_an_open_circuit_is_waited_out_in_the_slot(app: WorkerApp, script: Script) -> None:
    script.steps = [CircuitOpenError("not asked", 0.2), CircuitOpenError("being probed", 0.2), "done"]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("succeeded") == 1, 20, "the end of the one delivery")
    assert script.deliveries == [("the-task", QUEUE, {"place": 3}, (1,))] * 3
    assert [ended(outcome) for outcome in ("retried", "handed_back", "failed")] == [0, 0, 0]


@pytest.mark.parametrize("patience", [60.0])
def test_a_circuit_open_beyond_the_slice_hands_the_message_back(app: WorkerApp, script: Script) -> None:
    script.steps = [CircuitOpenError("not asked", 60), "done"]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("succeeded") == 1, 20, "the second delivery")
    assert ended("handed_back") == 1
    assert script.deliveries[1][2].keys() == {"place", "first_tried", "request_id"}


def test_a_circuit_open_longer_than_the_tasks_patience_ends_it(app: WorkerApp, script: Script) -> None:
    script.steps = [CircuitOpenError("not asked", 60)] * 10
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("failed") == 1, 20, "the end")
    assert script.finals == [("not asked", (1,), {})]


def test_a_stop_ends_the_wait_for_a_circuit(app: WorkerApp, script: Script) -> None:
    script.steps = [CircuitOpenError("not asked", 60), "done"]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: len(script.deliveries) == 1, 20, "the first delivery")
    app.resources.stopping.set()
    wait_for(lambda: ended("handed_back") == 1, 0.5, "the end of the wait")


def test_a_task_past_its_deadline_is_retried_and_says_what_took_the_time(app: WorkerApp, script: Script) -> None:
    said: list[DeadlineExceededError] = []

    def spend(call: Call) -> str:
        with call.deadline.step("thinking"):
            call.stopping.wait(1.1)
        said.append(call.deadline.exceeded())
        call.deadline.check()
        return "late"

    script.steps = [spend, "done"]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("succeeded") == 1, 20, "the second delivery")
    assert ended("retried") == 1
    assert "scripted ran out of time: thinking took 1.1 s" in str(said[0])


class Unreachable(Signature):  # type: ignore[misc] # Celery ships no types
    """What cannot be published, since its broker is away."""

    def apply_async(self, *_args: Any, **_kwargs: Any) -> None:
        raise OSError("connection refused")


class Buggy(Signature):  # type: ignore[misc] # Celery ships no types
    """What cannot be published, for a reason that the broker's client does not know itself."""

    def apply_async(self, *_args: Any, **_kwargs: Any) -> None:
        raise AttributeError("'NoneType' object has no attribute 'client'")


@pytest.mark.parametrize("unsent", [Unreachable, Buggy])
@pytest.mark.parametrize("step", [BackendUnavailableError("away"), HandBack("the slice is over")])
def test_a_message_that_cannot_be_sent_again_goes_back_to_the_broker(
    app: WorkerApp, script: Script, monkeypatch: pytest.MonkeyPatch, step: Exception, unsent: type[Signature]
) -> None:
    script.steps = [step, "done"]
    seam = app.tasks["scripted"]
    monkeypatch.setattr(type(seam), "signature_from_request", lambda *_args, **_kwargs: unsent("scripted", app=app))
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("succeeded") == 1, 20, "the redelivery")
    assert len(script.deliveries) == 2


def test_wrong_arguments_end_in_the_finalizer_too(app: WorkerApp, script: Script) -> None:
    ended = outcomes()
    app.send_task("scripted", kwargs={"unexpected": 1}, queue=QUEUE)
    wait_for(lambda: ended("failed") == 1, 20, "the end")
    ((reason, args, kwargs),) = script.finals
    assert "unexpected" in reason
    assert (args, kwargs) == ((), {"unexpected": 1})


class Kept:
    """Where messages go that failed for good, and whether their work was given back."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self, _call: Call, error: Exception, /, *_args: Any, **_kwargs: Any) -> None:
        self.reasons.append(str(error))


@pytest.mark.parametrize("ending", [BackendRefusedError("400: no", 400), TypeError("a bug")])
def test_a_finalizer_that_fails_for_good_loses_no_message(
    app: WorkerApp, script: Script, monkeypatch: pytest.MonkeyPatch, ending: Exception
) -> None:
    kept = Kept()
    monkeypatch.setattr("shared.task.bury", kept)
    script.steps, script.endings = [PayloadError("nonsense")], [ending]
    ended = outcomes()
    send(app, 1)
    wait_for(lambda: ended("failed") == 1, 20, "the end")
    assert kept.reasons == ["nonsense"]


@pytest.mark.parametrize(
    "headers", [{"sends": "abc"}, {"sent_at": 10**400}, {"first_tried": ["x"]}, {"sends": True, "sent_at": "now"}]
)
def test_headers_that_are_no_numbers_lose_no_message(app: WorkerApp, script: Script, headers: dict[str, Any]) -> None:
    script.steps = [BackendUnavailableError("away"), "done"]
    ended = outcomes()
    app.send_task("scripted", args=[1], queue=QUEUE, headers=headers, ignore_result=True)
    wait_for(lambda: ended("succeeded") == 1, 20, "the second delivery")
    assert ended("retried") == 1
