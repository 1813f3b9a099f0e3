"""What `workers top` makes of two looks at the fleet."""

import io
from typing import Any

import pytest
from rich.console import Console

from monitoring.prometheus_metrics import (
    BEAT_TICK,
    EXECUTIONS_OPEN,
    EXECUTIONS_OVERDUE,
    QUEUE_CONSUMERS,
    QUEUE_LENGTH,
    QUEUE_STANDSTILL,
    WORKER_UP,
)
from monitoring.queue_exporter import Exporter
from shared.commands.top import Look, rates, shown


def counted(**numbers: float) -> dict[str, Any]:
    return {"tasks": {"t": {"succeeded": 0.0, "failed": 0.0, "retried": 0.0, "seconds": 0.0} | numbers}}


def test_rates_are_those_between_two_looks_of_all_workers_together() -> None:
    before = {"a": counted(succeeded=10, seconds=5), "b": counted(succeeded=1)}
    now = {"a": counted(succeeded=14, failed=2, seconds=11), "b": counted(succeeded=1, retried=6)}
    rate = rates(before, now, 2.0)["t"]
    assert (rate.succeeded, rate.failed, rate.retried) == (2, 1, 3)
    assert rate.each == pytest.approx(0.5)


def test_a_worker_that_has_begun_anew_or_just_come_counts_from_nothing() -> None:
    assert rates({"a": counted(succeeded=100)}, {"a": counted(succeeded=4)}, 2.0)["t"].succeeded == 2
    assert rates({}, {"a": counted(succeeded=4)}, 2.0)["t"].succeeded == 2
    assert rates({"a": counted(succeeded=4)}, {}, 2.0) == {}


def test_what_is_wrong_can_be_seen() -> None:
    def ask() -> Any:
        return {
            QUEUE_LENGTH: {("file_processing",): 7, ("celery",): 0},
            QUEUE_CONSUMERS: {("file_processing",): 0, ("celery",): 1},
            QUEUE_STANDSTILL: {("file_processing",): 40, ("celery",): 3},
            WORKER_UP: {("all@here",): 1, ("all@gone",): 0},
            EXECUTIONS_OPEN: {(): 3},
            EXECUTIONS_OVERDUE: {(): 2},
            BEAT_TICK: {(): 990.0},
        }

    def fail() -> Any:
        raise OSError("away")

    exporter = Exporter({"workers": ask, "broker": fail}, 5, lambda *_: None)
    for name in ("workers", "broker"):
        exporter.ask(name)
    running = [{"task": "t", "task_id": "1", "execution_id": None, "queue": "celery", "seconds": 9.0}]
    said = {"profile": "all", "busy": 1, "slots": 4, "circuits": {"bulk": "open"}, "running": running, **counted()}
    errors = [{"at": 995.0, "task": "t", "execution_id": "ex", "error": "[red]no[/red] such tool"}]
    look = Look(1.0, exporter, {"all@here": said}, errors)
    console = Console(width=140, record=True, markup=False, highlight=False, file=io.StringIO())
    console.print(shown(look, look, 1_000.0))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "executions open 3, overdue 2 beat looked 10 s ago no answer from broker" in lines
    assert "file_processing 7 - 0 40" in lines
    assert "celery 0 - 1 0" in lines
    assert "all@here all 1 4 bulk open" in lines
    assert "all@gone no answer - -" in lines
    assert "9.0 t 1 celery all@here" in lines
    assert "5 t ex [red]no[/red] such tool" in lines
