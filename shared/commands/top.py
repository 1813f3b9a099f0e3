"""`python -m shared.commands.top`: what `workers top` runs. The fleet as it is now, looked at again and again.

It asks what the monitor asks: the broker, the state store, and every worker over the broker. It takes no message.
"""

import shared.without_extras  # noqa: F401, I001 # first: it must come before Celery

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from monitoring.fleet import Fleet
from monitoring.prometheus_metrics import (
    BEAT_TICK,
    EXECUTIONS_OPEN,
    EXECUTIONS_OVERDUE,
    QUEUE_CONSUMERS,
    QUEUE_LENGTH,
    QUEUE_STANDSTILL,
    QUEUE_UNACKNOWLEDGED,
    WORKER_UP,
)
from monitoring.queue_exporter import Exporter
from shared.config import MonitorSettings
from shared.errors import StateStoreError
from shared.logging_utils import configure_logging
from shared.monitor import sources
from shared.recent_errors import RecentErrors
from shared.redis_connection import redis_client
from shared.variables import SettingsError

_ERRORS, _RUNNING = 5, 8
_OUTCOMES = ("succeeded", "failed", "retried", "seconds")

Reports = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one time.

    Attributes:
        at: when, in seconds, steadily growing.
        exporter: the numbers of queues, workers and executions.
        workers: what each worker says, by its node.
        errors: the last ones, the latest first.
    """

    at: float
    exporter: Exporter
    workers: Reports
    errors: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Rates:
    """What became of one kind of task between two looks, each per second; and the seconds that one of them took."""

    succeeded: float = 0.0
    failed: float = 0.0
    retried: float = 0.0
    each: float = 0.0


def rates(before: Reports, now: Reports, seconds: float) -> dict[str, Rates]:
    """By the names of tasks, of all workers together. One that has begun anew counts from nothing."""
    sums: dict[str, dict[str, float]] = {}
    for node, report in now.items():
        earlier = before.get(node, {}).get("tasks", {})
        for task, counted in report.get("tasks", {}).items():
            known = earlier.get(task, {})
            begun_anew = any(counted[what] < known.get(what, 0.0) for what in _OUTCOMES)
            total = sums.setdefault(task, dict.fromkeys(_OUTCOMES, 0.0))
            for what in _OUTCOMES:
                total[what] += counted[what] - (0.0 if begun_anew else known.get(what, 0.0))
    return {task: _rates(total, seconds) for task, total in sums.items()}


def _rates(total: Mapping[str, float], seconds: float) -> Rates:
    ended = total["succeeded"] + total["failed"] + total["retried"]
    each = total["seconds"] / ended if ended else 0.0
    return Rates(total["succeeded"] / seconds, total["failed"] / seconds, total["retried"] / seconds, each)


def shown(before: Look, now: Look, wall: float) -> RenderableType:
    """The whole view. `wall` is the time of day, in seconds since 1970."""
    return Group(
        _head(now, wall),
        _queues(now.exporter),
        _workers(now),
        _tasks(rates(before.workers, now.workers, max(now.at - before.at, 0.001))),
        _running(now.workers),
        _errors(now.errors, wall),
    )


def _head(now: Look, wall: float) -> Text:
    numbers = now.exporter.numbers
    opened, overdue = (numbers(one).get((), None) for one in (EXECUTIONS_OPEN, EXECUTIONS_OVERDUE))
    tick = numbers(BEAT_TICK).get(())
    silent = sorted(name for (name,), ok in now.exporter.answering().items() if not ok)
    line = Text(f"executions open {_number(opened)}, overdue {_number(overdue)}", style="red" if overdue else "")
    line.append(
        f"   beat {'was never seen' if tick is None else f'looked {max(0.0, wall - tick):.0f} s ago'}", style="none"
    )
    return line.append(f"   no answer from {', '.join(silent)}", style="bold red") if silent else line


def _queues(exporter: Exporter) -> Table:
    table = _table("queue", "waiting", "unacknowledged", "consumers", "stands still, s")
    lengths = exporter.numbers(QUEUE_LENGTH)
    others = [exporter.numbers(one) for one in (QUEUE_UNACKNOWLEDGED, QUEUE_CONSUMERS, QUEUE_STANDSTILL)]
    for key in sorted(lengths, key=lambda key: (-lengths[key], key)):
        held, consumers, still = (numbers.get(key) for numbers in others)
        bad = lengths[key] > 0 and not consumers
        table.add_row(
            key[0],
            *map(_number, (lengths[key], held, consumers, still if lengths[key] else 0)),
            style="red" if bad else "",
        )
    return table


def _workers(now: Look) -> Table:
    table = _table("worker", "profile", "busy", "slots", "circuits")
    for (node,), up in sorted(now.exporter.numbers(WORKER_UP).items()):
        report = now.workers.get(node, {}) if up else {}
        broken = {group: state for group, state in report.get("circuits", {}).items() if state != "closed"}
        said = ", ".join(f"{group} {state}" for group, state in broken.items()) or "closed"
        busy, slots = (_number(report.get(what)) for what in ("busy", "slots"))
        table.add_row(
            node,
            report.get("profile", "no answer"),
            busy,
            slots,
            said if report else "",
            style="" if up and not broken else "red",
        )
    return table


def _tasks(found: Mapping[str, Rates]) -> Table:
    table = _table("task", "done/s", "failed/s", "retried/s", "s each")
    for task, rate in sorted(found.items(), key=lambda item: -item[1].each):
        numbers = (rate.succeeded, rate.failed, rate.retried, rate.each)
        table.add_row(task, *(f"{number:.2f}" for number in numbers), style="red" if rate.failed else "")
    return table


def _running(workers: Reports) -> Table:
    table = _table("at work for, s", "task", "execution", "queue", "worker")
    found = [(node, one) for node, report in workers.items() for one in report.get("running", ())]
    for node, one in sorted(found, key=lambda item: -item[1]["seconds"])[:_RUNNING]:
        table.add_row(f"{one['seconds']:.1f}", one["task"], one["execution_id"] or one["task_id"], one["queue"], node)
    return table


def _errors(errors: Sequence[Mapping[str, Any]], wall: float) -> Table:
    table = _table("failed, s ago", "task", "execution", "error")
    for one in errors:
        ago = f"{wall - float(one.get('at', wall)):.0f}"
        table.add_row(ago, *(Text(str(one.get(what, ""))) for what in ("task", "execution_id", "error")))
    return table


def _table(first: str, *columns: str) -> Table:
    return Table(first, *columns, box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


class Eye:
    """Looks at the fleet.

    Args:
        settings: where broker and state store are.
        interval: seconds between two looks.
    """

    def __init__(self, settings: MonitorSettings, interval: float) -> None:
        asked = sources(settings)
        self._names, self._fleet, self._errors = list(asked), asked["workers"], RecentErrors(redis_client(settings))
        self._exporter = Exporter(asked, interval, _say_nothing)

    def look(self) -> Look:
        """Ask everybody once; what does not answer is missing."""
        for name in self._names:
            self._exporter.ask(name)
        said = self._fleet.said if isinstance(self._fleet, Fleet) else {}
        try:
            errors = self._errors.last(_ERRORS)
        except StateStoreError:
            errors = []
        return Look(time.monotonic(), self._exporter, said, errors)


def _say_nothing(_name: str, _error: Exception | None) -> None:
    """The view says which sources do not answer."""


@click.command()
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Print one view and end, as is done where this is no terminal.")
def main(interval: float, once: bool) -> None:
    """Watch the fleet: queues, workers, rates, circuits, the slowest tasks, the last errors. Ctrl-C ends it.

    Needs CELERY_BROKER_URL and CACHE_REDIS_*, as the monitor does. Takes no message. Rates are those between two looks.
    """
    configure_logging("ERROR", "auto")
    try:
        eye = Eye(MonitorSettings.load(), interval)
    except SettingsError as error:
        sys.exit(f"workers: top cannot start:\n{error}")
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False, emoji=False, markup=False)
    before = eye.look()
    after = partial(_after, eye, interval)
    try:
        if once or not console.is_terminal:
            console.print(shown(before, after(), time.time()))
        else:
            _watch(console, before, after)
    except KeyboardInterrupt:
        sys.exit(0)


def _watch(console: Console, before: Look, after: Callable[[], Look]) -> None:
    with Live(shown(before, before, time.time()), console=console, screen=True, auto_refresh=False) as live:
        while True:
            now = after()
            live.update(shown(before, now, time.time()), refresh=True)
            before = now


def _after(eye: Eye, seconds: float) -> Look:
    time.sleep(seconds)
    return eye.look()


if __name__ == "__main__":
    main(prog_name="workers top")
