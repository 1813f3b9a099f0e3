"""Deliveries that come twice, late, in any order, or die at any point: the run ends as it does on paper."""

import random
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.workflows.client import TaskClient
from shared.workflows.shape import ON_FAILURE, RunStatus
from tests.conformance.drawn import ALWAYS, Drawn, DrawnStep, Journal, declare, expected, workflows
from tests.integration.workflows.desk import Desk, Died, desk

_DRAWN = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def fleet(redis_url: str) -> Iterator[Desk]:
    with desk(redis_url) as found:
        yield found


def begin(fleet: Desk, drawn: Drawn, folder: Path) -> tuple[TaskClient, str, Journal]:
    journal = Journal(folder / uuid4().hex)
    client = fleet.client(declare(drawn))
    return client, client.start_workflow(drawn.name, {"journal": str(journal.path)}), journal


def check(client: TaskClient, run_id: str, drawn: Drawn) -> None:
    paper, view = expected(drawn), client.status(run_id)
    steps = {name: step for name, step in view.steps.items() if name != ON_FAILURE}
    assert {name: step.state for name, step in steps.items()} == paper.states
    assert {name: step.attempts for name, step in steps.items()} == paper.attempts
    assert view.status is paper.status
    assert [(one.step, one.attempt, one.index) for one in view.failures()] == paper.failed
    if drawn.on_failure and paper.failed:
        assert view.steps[ON_FAILURE].attempts == 1


def pieces(journal: Journal) -> list[tuple[object, ...]]:
    return [(line["step"], line["item"], line["attempt"]) for line in journal.lines() if line["what"] == "begun"]


@_DRAWN
@given(drawn=workflows(), seed=st.integers(0, 10**9))
def test_copies_that_come_at_once_later_and_in_any_order_change_nothing(
    fleet: Desk, tmp_path: Path, drawn: Drawn, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    client, run_id, journal = begin(fleet, drawn, tmp_path)
    late: list[str] = []
    while fleet.messages:
        message = fleet.messages.pop(chance.randrange(len(fleet.messages)))
        fleet.deliver(message)
        fleet.deliver(message)
        if message.task_id not in late:
            late.append(message.task_id)
            fleet.messages.append(message)
    check(client, run_id, drawn)
    assert len(pieces(journal)) == len(set(pieces(journal))), "an attempt was made twice"
    for message in fleet.sent:
        fleet.deliver(message)
    fleet.sent.clear()
    fleet.drain()
    check(client, run_id, drawn)


S = DrawnStep
FORKED = Drawn(
    "forked",
    (
        S("split"),
        S("ocr", ("split",), items=3, failures=1, retries=1, failing=(1,)),
        S("plain", ("split",), retries=2, failures=2),
        S("left", ("split",), skipped=True),
        S("left-too", ("left",)),
        S("empty", ("plain",), items=0),
        S("join", ("ocr", "plain", "left-too", "empty")),
    ),
    on_failure=True,
)
BROKEN = Drawn(
    "broken",
    (
        S("split"),
        S("ocr", ("split",), items=2, failures=ALWAYS, retries=1, failing=(1,)),
        S("behind", ("ocr",)),
        S("far-behind", ("behind",)),
        S("beside", ("split",)),
        S("join", ("far-behind", "beside")),
    ),
    on_failure=True,
)


def operations(fleet: Desk, drawn: Drawn, folder: Path) -> int:
    """How much a run asks for, once the server knows the scripts."""
    for _ in range(2):
        client, run_id, _journal = begin(fleet, drawn, folder)
        before = fleet.fate.asked
        fleet.drain()
        asked = fleet.fate.asked - before
        check(client, run_id, drawn)
    return asked


@pytest.mark.parametrize("drawn", [FORKED, BROKEN], ids=lambda drawn: drawn.name)
@pytest.mark.parametrize(
    "at_once",
    [True, pytest.param(False, marks=pytest.mark.matrix)],
    ids=["redelivered-at-once", "redelivered-last"],
)
def test_a_death_at_any_point_is_mended_by_the_redelivery(
    fleet: Desk, tmp_path: Path, drawn: Drawn, at_once: bool
) -> None:
    count = operations(fleet, drawn, tmp_path)
    assert count > 30
    wrong: list[str] = []
    for at in range(1, count + 1):
        client, run_id, _ = begin(fleet, drawn, tmp_path)
        fleet.fate.left = at
        while fleet.messages:
            message = fleet.messages.pop(0)
            if fleet.deliver(message) == "died":
                fleet.messages.insert(0 if at_once else len(fleet.messages), message)
        assert fleet.fate.left is None, "nobody died"
        try:
            check(client, run_id, drawn)
        except AssertionError as error:
            wrong.append(f"death {at} of {count}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("drawn", [FORKED, BROKEN], ids=lambda drawn: drawn.name)
def test_a_death_at_any_point_whose_message_is_lost_is_mended_by_the_sweeper(
    fleet: Desk, tmp_path: Path, drawn: Drawn
) -> None:
    count = operations(fleet, drawn, tmp_path)
    wrong: list[str] = []
    for at in range(1, count + 1):
        client, run_id, _ = begin(fleet, drawn, tmp_path)
        fleet.fate.left = at
        fleet.drain()
        fleet.fate.left = None
        view = fleet.sweep_to_the_end(client, run_id)
        try:
            assert view.status is not RunStatus.RUNNING
            check(client, run_id, drawn)
        except AssertionError as error:
            wrong.append(f"death {at} of {count}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("drawn", [FORKED, BROKEN], ids=lambda drawn: drawn.name)
def test_any_message_lost_is_sent_again_by_the_sweeper(fleet: Desk, tmp_path: Path, drawn: Drawn) -> None:
    fleet.sent.clear()
    operations(fleet, drawn, tmp_path)
    count = len(fleet.sent) // 2
    for lost in range(count + 1):  # the last: all of them
        client, run_id, _ = begin(fleet, drawn, tmp_path)
        delivered = 0
        while fleet.messages:
            message = fleet.messages.pop(0)
            if lost not in {delivered, count}:
                fleet.deliver(message)
            delivered += 1
        fleet.sweep_to_the_end(client, run_id)
        check(client, run_id, drawn)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a thread of it dies first
@pytest.mark.parametrize("drawn", [FORKED, BROKEN], ids=lambda drawn: drawn.name)
def test_the_sweeper_may_die_at_any_point_too(fleet: Desk, tmp_path: Path, drawn: Drawn) -> None:
    """All that it does is done again by the next round."""
    at, living = 1, 0
    while not living:
        client, run_id, _ = begin(fleet, drawn, tmp_path)
        fleet.messages.clear()
        fleet.fate.left = at
        try:
            for _ in range(12):
                fleet.sweep()
                left, fleet.fate.left = fleet.fate.left, None
                fleet.drain()
                fleet.fate.left = left
            living, fleet.fate.left = 1, None
        except Died:
            fleet.end_leases()
        fleet.fate.dead = False
        fleet.sweep_to_the_end(client, run_id)
        check(client, run_id, drawn)
        at += 1
    assert at > 10


@pytest.mark.parametrize("drawn", [FORKED, BROKEN], ids=lambda drawn: drawn.name)
@pytest.mark.parametrize("away", [pytest.param(1, marks=pytest.mark.matrix), 4])
def test_an_outage_of_store_and_broker_at_any_point_loses_nothing(
    fleet: Desk, tmp_path: Path, drawn: Drawn, away: int
) -> None:
    count = operations(fleet, drawn, tmp_path)
    wrong: list[str] = []
    for at in range(1, count + 1):
        client, run_id, _ = begin(fleet, drawn, tmp_path)
        fleet.fate.left, fleet.fate.away = at, away
        while fleet.messages:
            fleet.deliver(fleet.messages.pop(0))
            fleet.end_leases()  # those that could not be given back
        fleet.fate.left, fleet.fate.away = None, 0
        try:
            check(client, run_id, drawn)
        except AssertionError as error:
            wrong.append(f"outage {at} of {count}: {error}")
    assert not wrong, "\n".join(wrong)
