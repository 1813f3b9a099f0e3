"""Every engine gives every workflow the same end: outcome, attempts, order, errors, whatever is drawn."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings

from shared.workflows.client import TaskClient
from shared.workflows.errors import RunCancelledError, RunFailedError
from shared.workflows.shape import ENDED, ON_FAILURE, RunStatus, StepState
from tests.conformance import engines
from tests.conformance.drawn import Drawn, Expected, Journal, declare, expected, plain, workflows
from tests.conformance.engines import World
from tests.conftest import emptied_rabbitmq

_SECONDS = 30.0
_DRAWN = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module", params=["local", "celery-redis", "celery-rabbitmq"])
def world(request: pytest.FixtureRequest, redis_url: str) -> Iterator[World]:
    """An engine, for all tests of this file: what they share is also a test."""
    if request.param == "local":
        with engines.local() as found:
            yield found
    elif request.param == "celery-redis":
        with engines.fleet(redis_url, redis_url) as found:
            yield found
    else:
        with emptied_rabbitmq() as rabbitmq, engines.fleet(rabbitmq, redis_url) as found:
            yield found


def run(world: World, drawn: Drawn, folder: Path) -> tuple[TaskClient, str, Journal]:
    """Run it to its end."""
    journal = Journal(folder / uuid4().hex)
    client = world.client(declare(drawn, world.engine.cancel))
    run_id = client.start_workflow(drawn.name, {"journal": str(journal.path)})
    return client, run_id, journal


@_DRAWN
@given(drawn=workflows())
def test_a_run_ends_as_it_does_on_paper(world: World, tmp_path: Path, drawn: Drawn) -> None:
    paper = expected(drawn)
    client, run_id, journal = run(world, drawn, tmp_path)
    check_end(client, run_id, drawn, paper)
    view = client.status(run_id)
    assert {name: step.state for name, step in view.steps.items() if name != ON_FAILURE} == paper.states
    assert {name: step.attempts for name, step in view.steps.items() if name != ON_FAILURE} == paper.attempts
    _check_journal(drawn, paper, journal)


def check_end(client: TaskClient, run_id: str, drawn: Drawn, paper: Expected, seconds: float = _SECONDS) -> None:
    """The result, or what has failed, as on paper."""
    parents = {parent for step in drawn.steps for parent in step.parents}
    leaves = {step.name for step in drawn.steps} - parents
    if paper.status is RunStatus.SUCCEEDED:
        result = client.result(run_id, seconds)
        assert plain(result) == {name: value for name, value in paper.outputs.items() if name in leaves}
        return
    with pytest.raises(RunFailedError) as failed:
        client.result(run_id, seconds)
    told = [failed.value, *failed.value.others]
    assert [(one.step, one.attempt, one.index) for one in told] == paper.failed
    assert all(one.reason == f"RuntimeError: attempt {one.attempt} of {one.step} fails" for one in told)


def _check_journal(drawn: Drawn, paper: Expected, journal: Journal) -> None:
    lines = journal.lines()
    begun = [line for line in lines if line["what"] == "begun"]
    assert sum(line["step"] == ON_FAILURE for line in begun) == int(drawn.on_failure and bool(paper.failed))
    if paper.failed and drawn.on_failure:
        assert lines[-1]["step"] == ON_FAILURE
    for step in drawn.steps:
        own = [line for line in begun if line["step"] == step.name]
        assert len(own) == paper.attempts[step.name]
        pieces = {(line["item"], line["attempt"]) for line in own}
        assert len(pieces) == len(own), "an attempt was made twice"
        for parent in step.parents:
            last = max((at for at, line in enumerate(lines) if line["step"] == parent), default=-1)
            first = min((at for at, line in enumerate(lines) if line["step"] == step.name), default=len(lines))
            assert last < first, f"{step.name} began before {parent} had ended"


@settings(_DRAWN, max_examples=20)
@given(drawn=workflows(cancels=True))
def test_a_run_that_is_cancelled_from_within_ends_cancelled(world: World, tmp_path: Path, drawn: Drawn) -> None:
    paper = expected(drawn)
    [cancelling] = [step for step in drawn.steps if step.cancels]
    client, run_id, journal = run(world, drawn, tmp_path)
    if not paper.attempts[cancelling.name]:  # it is never reached
        check_end(client, run_id, drawn, paper)
        return
    with pytest.raises(RunCancelledError):
        client.result(run_id, _SECONDS)
    view = client.status(run_id)
    assert view.status is RunStatus.CANCELLED
    assert all(step.state in ENDED for step in view.steps.values())
    assert view.steps[cancelling.name].state is StepState.CANCELLED
    begun = {line["step"] for line in journal.lines()}
    assert not begun & (drawn.descendants(cancelling.name) | {ON_FAILURE})
    assert client.cancel(run_id) is False


@_DRAWN
@given(drawn=workflows())
def test_the_events_tell_the_run(world: World, tmp_path: Path, drawn: Drawn) -> None:
    paper = expected(drawn)
    client, run_id, _ = run(world, drawn, tmp_path)
    events = list(client.events(run_id))
    assert events[0].state == RunStatus.RUNNING
    assert (events[-1].step, events[-1].state) == (None, paper.status)
    assert len({event.id for event in events}) == len(events)
    for name, state in paper.states.items():
        own = [event for event in events if event.step == name]
        assert [event.state for event in own if event.index is None and event.state in ENDED] == [state]
        assert sum(event.state == StepState.RUNNING for event in own) == paper.attempts[name]
        assert own[-1].state == state
        if state in {StepState.SUCCEEDED, StepState.FAILED}:
            assert own[0].state == StepState.QUEUED
    # From anywhere on, the rest follows.
    middle = len(events) // 2
    assert list(client.events(run_id, events[middle].id)) == events[middle + 1 :]
