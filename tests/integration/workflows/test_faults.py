"""What the sweeper, the guard, the deadline and a roll-out do to runs, delivery by delivery."""

import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.stack import wait_for
from shared.errors import BackendUnavailableError, DeadlineExceededError, StateStoreError
from shared.workflows import sweep as sweeper
from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow
from shared.workflows.errors import RunCancelledError, RunFailedError
from shared.workflows.run_reads import REGISTER_KEY
from shared.workflows.shape import RunStatus, StepState
from shared.workflows.sweep import sweep
from tests.integration.workflows.desk import Desk, Died, desk

SHORT = 0.001  # minutes
SHORT_SECONDS = SHORT * 60

Body = Callable[[Any, TaskContext], Any]


@pytest.fixture
def fleet(redis_url: str) -> Iterator[Desk]:
    with desk(redis_url, BATCH_SLICE_SECONDS="1", INTERNAL_API_TIMEOUT="0.5") as found:
        yield found


def nothing(_value: Any, _ctx: TaskContext) -> Any:
    return "given"


def owner(name: str, last: Body | None = None, *, minutes: float = 10, **steps: tuple[Body, dict[str, Any]]) -> Any:
    """A workflow whose steps do that."""
    body: dict[str, Any] = {}
    for step, (does, options) in steps.items():
        body[step] = task(name=step, **options)(_of(does))
    if last is not None:
        body["on_failure"] = task(timeout_minutes=SHORT, retries=1, backoff_seconds=0)(_of(last))
    return workflow(name=name, timeout_minutes=minutes)(
        types.new_class("W", (BaseWorkflow,), exec_body=lambda names: names.update(body))
    )


def _of(does: Body) -> Any:
    def method(_self: Any, input_data: Any, ctx: TaskContext) -> Any:
        return does(input_data, ctx)

    return method


@pytest.mark.parametrize("swept", [True, False])
def test_a_late_answer_is_not_heard_and_its_requests_are_refused(fleet: Desk, swept: bool) -> None:
    seen: list[Any] = []

    def hang(_value: Any, ctx: TaskContext) -> Any:
        if ctx.attempt == 2:
            return "in time"
        time.sleep(SHORT_SECONDS * 1.2)
        if swept:
            sweep(fleet.call())
        with pytest.raises(DeadlineExceededError):
            ctx.client.execution("ex")
        ctx.progress(1, 1, "late")
        seen.append(ctx.cancelled)
        return "late"

    client = fleet.client(owner("late", one=(hang, {"timeout_minutes": SHORT, "retries": 1, "backoff_seconds": 0})))
    run_id = client.start_workflow("late", organization_id="org")
    fleet.drain()
    assert client.result(run_id) == {"one": "in time"}
    step = client.status(run_id).steps["one"]
    assert (seen, step.attempts, step.message) == ([True], 2, None)
    reasons = [event.reason for event in client.events(run_id) if event.reason]
    assert reasons == [f"it took longer than {SHORT_SECONDS:g} s"]


def test_the_late_answer_of_on_failure_does_not_end_the_run(fleet: Desk) -> None:
    states: list[RunStatus] = []

    def fail(_value: Any, _ctx: TaskContext) -> Any:
        raise RuntimeError("no")

    def last(_value: Any, ctx: TaskContext) -> Any:
        if ctx.attempt == 1:
            time.sleep(SHORT_SECONDS * 1.2)
            sweep(fleet.call())
        else:
            states.append(client.status(ctx.run_id).status)

    client = fleet.client(owner("last", last, one=(fail, {})))
    run_id = client.start_workflow("last")
    fleet.drain()
    assert states == [RunStatus.RUNNING]
    view = client.status(run_id)
    assert (view.status, view.steps["on_failure"].attempts) == (RunStatus.FAILED, 2)


def test_a_run_past_its_deadline_fails_and_its_on_failure_is_not_lost(fleet: Desk) -> None:
    told: list[Any] = []

    def last(_value: Any, ctx: TaskContext) -> Any:
        told.append([(one.step, one.reason) for one in ctx.failures])

    client = fleet.client(
        owner("over", last, minutes=SHORT, one=(nothing, {}), two=(nothing, {"parents": ["one"]}), three=(nothing, {}))
    )
    run_id = client.start_workflow("over")
    fleet.deliver(next(message for message in fleet.messages if message.place[0] == "three"))
    fleet.messages.clear()
    time.sleep(SHORT_SECONDS * 1.1)
    fleet.sweep()
    assert [message.place[0] for message in fleet.messages] == ["on_failure"]
    fleet.messages.clear()
    fleet.sweep()
    assert [message.place[0] for message in fleet.messages] == ["on_failure"]
    again = fleet.redis.zscore(REGISTER_KEY, run_id)
    assert again is not None
    assert float(again) < time.time() + 700
    fleet.drain()
    assert told == [[("one", f"the run did not end within {SHORT_SECONDS:g} s")]]
    view = client.status(run_id)
    assert view.status is RunStatus.FAILED
    assert [step.state for step in view.steps.values()][:3] == ["failed", "not_run", "succeeded"]


def test_a_run_whose_on_failure_never_comes_ends_all_the_same(fleet: Desk) -> None:
    client = fleet.client(owner("never", nothing, minutes=SHORT, one=(nothing, {})))
    run_id = client.start_workflow("never")
    for _ in range(4):
        fleet.messages.clear()
        time.sleep(SHORT_SECONDS)
        fleet.sweep()
    view = client.status(run_id)
    assert (view.status, view.reason) == (RunStatus.FAILED, f"the run did not end within {SHORT_SECONDS:g} s")
    assert not fleet.redis.zcard(REGISTER_KEY)


def test_two_sweepers_are_one(fleet: Desk) -> None:
    """The second has nothing to do while the first is at it."""
    client = fleet.client(owner("swept", one=(nothing, {})))
    run_id = client.start_workflow("swept")
    fleet.messages.clear()
    send = fleet.send_task
    rounds: list[bool] = []

    def meanwhile(*args: Any, **options: Any) -> None:
        if not rounds:
            rounds.append(True)
            sweep(fleet.call())
        send(*args, **options)

    fleet.app.send_task = meanwhile  # type: ignore[method-assign]
    fleet.sweep()
    assert (rounds, len(fleet.messages)) == ([True], 1)
    fleet.drain()
    assert client.status(run_id).status is RunStatus.SUCCEEDED


def test_what_processes_die_of_fails_and_the_run_goes_on(fleet: Desk) -> None:
    def die(_value: Any, _ctx: TaskContext) -> Any:
        fleet.fate.die()

    client = fleet.client(
        owner(
            "poison",
            nothing,
            bad=(die, {"retries": 3}),
            behind=(nothing, {"parents": ["bad"]}),
            beside=(nothing, {}),
        )
    )
    run_id = client.start_workflow("poison")
    deaths = 0
    while fleet.messages:
        message = fleet.messages.pop(0)
        if fleet.deliver(message) == "died":
            deaths += 1
            fleet.messages.append(message)
    view = client.status(run_id)
    assert (deaths, view.status) == (fleet.app.resources.settings.most_deliveries, RunStatus.FAILED)
    assert view.steps["bad"].reason == f"{deaths} processes have died while they worked on this; it is not tried again"
    assert [step.state for step in view.steps.values()] == ["failed", "not_run", "succeeded", "succeeded"]


def forget(fleet: Desk, name: str) -> Any:
    return fleet.workflows._declarations.pop(name)


def test_what_is_not_known_here_waits_for_who_knows_it(fleet: Desk) -> None:
    client = fleet.client(owner("rolled", one=(nothing, {}), two=(nothing, {"parents": ["one"]})))
    known = fleet.workflows.named("rolled")
    run_id = client.start_workflow("rolled")
    for _ in range(2):
        forget(fleet, "rolled")
        assert fleet.deliver(fleet.messages.pop(0)) == "retried"
        fleet.workflows.add([known.owner])
        fleet.deliver(fleet.messages.pop(0))
    assert client.result(run_id) == {"two": "given"}


@pytest.mark.parametrize("missing", ["all", "two"])
def test_what_nobody_knows_ends_with_the_remedy(fleet: Desk, missing: str) -> None:
    client = fleet.client(owner("gone", one=(nothing, {}), two=(nothing, {"parents": ["one"]})))
    run_id = client.start_workflow("gone")
    forget(fleet, "gone")
    if missing == "two":
        fleet.client(owner("gone", one=(nothing, {})))
    assert fleet.deliver(fleet.messages.pop(0)) == "retried"
    assert client.status(run_id).ended is None
    for message in fleet.messages:
        message.headers["first_tried"] = time.time() - 400
    fleet.drain()
    with pytest.raises(RunFailedError, match="have WORKFLOW_MODULES of all workers name its module"):
        client.result(run_id)
    assert client.status(run_id).status is RunStatus.FAILED


def test_a_run_ends_by_the_graph_that_it_was_started_with(fleet: Desk) -> None:
    def number(_value: Any, _ctx: TaskContext) -> Any:
        return {"n": [1, 2]}

    def add(value: Any, ctx: TaskContext) -> Any:
        return (value, ctx.task_output("one"), ctx.deadline.remaining > 60)[0]

    def total(_value: Any, ctx: TaskContext) -> Any:
        assert ctx.deadline.remaining > 60
        return sum(ctx.task_output("two"))

    client = fleet.client(
        owner(
            "graph",
            one=(number, {}),
            two=(add, {"parents": ["one"], "map_over": "n"}),
            three=(total, {"parents": ["two"]}),
        )
    )
    run_id = client.start_workflow("graph")
    fleet.deliver(fleet.messages.pop(0))
    short = {"timeout_minutes": SHORT}
    fleet.client(owner("graph", two=(add, short), three=(total, short), four=(nothing, {"parents": ["three"]})))
    fleet.drain()
    assert client.result(run_id) == {"three": 3}
    assert list(client.status(run_id).steps) == ["one", "two", "three"]


@pytest.mark.parametrize("error", [BackendUnavailableError("away"), StateStoreError("away")])
def test_what_is_away_uses_up_no_attempt_but_time(fleet: Desk, error: Exception) -> None:
    deliveries: list[int] = []

    def ask(_value: Any, ctx: TaskContext) -> Any:
        deliveries.append(ctx.attempt)
        if len(deliveries) < 4:
            raise error
        return "answered"

    client = fleet.client(owner("away", one=(ask, {})))
    run_id = client.start_workflow("away")
    fleet.drain()
    assert (client.result(run_id), deliveries) == ({"one": "answered"}, [1, 1, 1, 1])
    assert client.status(run_id).steps["one"].attempts == 1

    def always(_value: Any, _ctx: TaskContext) -> Any:
        time.sleep(SHORT_SECONDS / 3)
        raise error

    fleet.client(owner("ever", one=(always, {"timeout_minutes": SHORT})))
    run_id = client.start_workflow("ever")
    fleet.drain()
    assert client.status(run_id).steps["one"].reason == f"it took longer than {SHORT_SECONDS:g} s"


def test_a_checkpoint_hands_back_as_the_same_attempt(fleet: Desk) -> None:
    deliveries: list[int] = []

    def wait(_value: Any, ctx: TaskContext) -> Any:
        deliveries.append(ctx.attempt)
        ctx.checkpoint()  # the slice has just begun
        if len(deliveries) == 1:
            time.sleep(1.05)
        if len(deliveries) == 2:
            fleet.app.resources.stopping.set()
        ctx.checkpoint()
        return "waited"

    client = fleet.client(owner("waits", one=(wait, {})))
    run_id = client.start_workflow("waits")
    fleet.deliver(fleet.messages.pop(0))
    fleet.deliver(fleet.messages.pop(0))
    fleet.app.resources.stopping.clear()
    assert len(fleet.messages) == 1
    fleet.drain()
    assert (client.result(run_id), deliveries) == ({"one": "waited"}, [1, 1, 1])
    assert client.status(run_id).steps["one"].attempts == 1


def test_a_cancel_between_begin_and_end_is_seen_and_the_answer_is_not(fleet: Desk) -> None:
    seen: list[float] = []

    def cancelled(_value: Any, ctx: TaskContext) -> Any:
        assert client.cancel(ctx.run_id)
        begun = time.monotonic()
        while not ctx.cancelled:
            time.sleep(0.02)
        seen.append(time.monotonic() - begun)
        with pytest.raises(RunCancelledError):
            ctx.checkpoint()
        with pytest.raises(RunCancelledError):
            ctx.client.execution("ex")
        ctx.progress(1, 1, "after the end")
        return "not heard"

    client = fleet.client(owner("cancels", nothing, one=(cancelled, {}), two=(nothing, {"parents": ["one"]})))
    run_id = client.start_workflow("cancels", organization_id="org")
    fleet.drain()
    view = client.status(run_id)
    assert seen[0] < 2
    assert (view.status, view.steps["one"].state, view.steps["one"].message) == ("cancelled", "cancelled", None)
    assert fleet.engine.output(run_id, "one") is None
    assert "on_failure" not in view.steps
    assert client.cancel(run_id) is False
    assert [event.state for event in client.events(run_id)][-1] == RunStatus.CANCELLED


def test_a_step_that_waits_for_a_run_that_was_cancelled_fails(fleet: Desk) -> None:
    """It is another run that was."""

    def wait(_value: Any, _ctx: TaskContext) -> Any:
        raise RunCancelledError("run other was cancelled")

    client = fleet.client(owner("parent", one=(wait, {})))
    run_id = client.start_workflow("parent")
    fleet.drain()
    assert client.status(run_id).steps["one"].state is StepState.FAILED


def test_a_long_chain_that_is_not_run_ends(fleet: Desk) -> None:
    def fail(_value: Any, _ctx: TaskContext) -> Any:
        raise RuntimeError("no")

    steps: dict[str, Any] = {f"s{at}": (nothing, {"parents": [f"s{at - 1}"]}) for at in range(1, 200)}
    client = fleet.client(owner("chain", s0=(fail, {}), **steps))
    run_id = client.start_workflow("chain")
    fleet.drain()
    assert client.status(run_id).status is RunStatus.FAILED


def test_a_condition_that_hangs_holds_up_no_other_run(fleet: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "_LONGEST_LOOK_SECONDS", 0.3)
    asked, go = [0], threading.Event()

    def when(_ctx: TaskContext) -> bool:
        asked[0] += 1
        if asked[0] == 1:
            raise Died
        return go.wait(30)

    hangs = owner("hangs", a=(nothing, {}), b=(nothing, {"parents": ["a"], "when": when}))
    client = fleet.client(hangs, owner("other", a=(nothing, {})))
    hanging = client.start_workflow("hangs")
    assert fleet.deliver(fleet.messages.pop()) == "died"
    other = client.start_workflow("other")
    fleet.messages.clear()
    begun = time.monotonic()
    fleet.sweep()
    assert time.monotonic() - begun < 5
    assert asked == [2]
    fleet.drain()
    assert client.status(other).status is RunStatus.SUCCEEDED
    assert client.status(hanging).status is RunStatus.RUNNING
    go.set()
    wait_for(lambda: bool(fleet.messages), 5, "the step to go out")
    fleet.drain()
    assert client.status(hanging).status is RunStatus.SUCCEEDED


def test_no_secret_is_among_the_reasons(fleet: Desk) -> None:
    secret = fleet.app.resources.settings.backend_key.reveal()

    def fail(_value: Any, _ctx: TaskContext) -> Any:
        raise RuntimeError(f"refused with {secret}")

    client = fleet.client(owner("told", a=(fail, {"retries": 1, "backoff_seconds": 0})))
    run_id = client.start_workflow("told")
    fleet.drain()
    told = [event.reason for event in client.events(run_id) if event.reason]
    assert told == ["RuntimeError: refused with ***"] * 2


def test_what_a_dead_process_was_at_is_sent_again_by_the_next_round(fleet: Desk) -> None:
    """A Redis broker gives its message out again only after the visibility timeout, in which its time may be over."""
    deaths = [0]

    def once(_value: Any, ctx: TaskContext) -> Any:
        deaths[0] += 1
        if deaths[0] == 1:
            fleet.fate.left = 1  # the process dies at its next question
        ctx.progress(1)
        return ctx.attempt

    client = fleet.client(owner("dies", a=(once, {"retries": 1})))
    run_id = client.start_workflow("dies")
    assert fleet.deliver(fleet.messages.pop()) == "died"
    for _ in range(3):  # it is sent once, though nobody takes it yet
        sweep(fleet.call())
    assert [message.place for message in fleet.messages] == [("a", None, 1)]
    fleet.drain()
    assert client.result(run_id, 5) == {"a": 1}
    assert client.status(run_id).steps["a"].attempts == 1


def test_a_step_that_was_handed_back_is_not_sent_again(fleet: Desk) -> None:
    def waits(_value: Any, ctx: TaskContext) -> Any:
        ctx.checkpoint()
        return "done"

    client = fleet.client(owner("waits", a=(waits, {})))
    run_id = client.start_workflow("waits")
    fleet.app.resources.stopping.set()
    fleet.deliver(fleet.messages.pop())
    fleet.app.resources.stopping.clear()
    sweep(fleet.call())
    assert len(fleet.messages) == 1
    fleet.drain()
    assert client.result(run_id, 5) == {"a": "done"}


class NoError(BaseException):
    """Of somebody who did not know."""


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def test_whatever_a_step_raises_is_its_failure(fleet: Desk) -> None:
    def fail(value: Any, _ctx: TaskContext) -> Any:
        raise NoError("x") if value else SpeechlessError

    client = fleet.client(owner("raises", a=(fail, {})))
    for value, said in ((1, "it raised NoError, which would end what it runs in"), (0, "SpeechlessError")):
        run_id = client.start_workflow("raises", value)
        fleet.drain()
        with pytest.raises(RunFailedError, match=said):
            client.result(run_id, 5)


def test_progress_is_told_in_numbers(fleet: Desk) -> None:
    def tell(value: Any, ctx: TaskContext) -> Any:
        ctx.progress(value)

    client = fleet.client(owner("tells", a=(tell, {})))
    for value in ("a", float("1e999"), None):
        run_id = client.start_workflow("tells", "Infinity" if value == float("inf") else value)
        fleet.drain()
        with pytest.raises(RunFailedError, match=r"ValueError|TypeError"):
            client.result(run_id, 5)
        assert client.status(run_id).steps["a"].done is None
