"""The workers, by what they answer, and the executions, by what the state store has of them."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from monitoring.prometheus_metrics import (
    BEAT_TICK,
    EXECUTIONS_OPEN,
    EXECUTIONS_OVERDUE,
    QUEUE_CONSUMERS,
    WORKER_TASKS,
    WORKER_UP,
)
from monitoring.queue_exporter import Clock, Found, Standstill

_REMEMBERED_SECONDS = 3_600
_OVERDUE_SECONDS = 300

_OURS = (("busy", int), ("queues", list), ("taken", dict), ("running", list), ("tasks", dict), ("circuits", dict))

Ask = Callable[[], Mapping[str, Any]]
"""What each worker that answers says of itself, by the name of its node: `shared/remote_control.py`."""


class Fleet:
    """Asks the workers.

    Args:
        ask: how.
        queues: the names of queues whose consumers are counted by what workers say; none where the broker says it.
        standstill: hears of which queues a worker has taken something.
        clock: seconds, steadily growing.

    Attributes:
        said: what each worker of ours said last, by the name of its node.
    """

    def __init__(self, ask: Ask, queues: Sequence[str], standstill: Standstill, clock: Clock = time.monotonic) -> None:
        self._ask, self._queues, self._standstill, self._clock = ask, queues, standstill, clock
        self._seen: dict[str, float] = {}
        self._taken: dict[tuple[str, str], int] = {}
        self.said: Mapping[str, Mapping[str, Any]] = {}

    def __call__(self) -> Found:
        """Which workers answer, what they run, and who consumes what. One of another platform is only up."""
        now = self._clock()
        said = {node: _of_ours(report) for node, report in self._ask().items()}
        self._seen = {node: at for node, at in self._seen.items() if now - at < _REMEMBERED_SECONDS}
        self._seen |= dict.fromkeys(said, now)
        self._note_moves(said)
        self.said = {node: report for node, report in said.items() if report}
        consumers = Counter(queue for report in said.values() for queue in report.get("queues", ()))
        return {
            WORKER_UP: {(node,): float(node in said) for node in self._seen},
            WORKER_TASKS: {(node,): report["busy"] for node, report in said.items() if "busy" in report},
            # What others consume is not known: a queue that none of ours consumes may be theirs.
            QUEUE_CONSUMERS: {(one,): consumers[one] for one in self._queues if consumers[one] or all(said.values())},
        }

    def _note_moves(self, said: Mapping[str, Mapping[str, Any]]) -> None:
        taken = {
            (node, queue): count for node, report in said.items() for queue, count in report.get("taken", {}).items()
        }
        for (node, queue), count in taken.items():
            if count != self._taken.get((node, queue), count):
                self._standstill.moved(queue)
        self._taken = taken


def _of_ours(report: Any) -> Mapping[str, Any]:
    """What a worker says, if it is one of ours: Celery's own answer to the same question is a text."""
    return (
        report if isinstance(report, dict) and all(isinstance(report.get(name), kind) for name, kind in _OURS) else {}
    )


class Executions:
    """Asks the state store.

    Args:
        client: its client, with bounded waits.
        register: the key of open executions, by the time at which somebody is to look after each.
        tick: the key of when the scheduler last looked.
        clock: seconds since the epoch.
    """

    def __init__(self, client: redis.Redis, register: str, tick: str, clock: Clock = time.time) -> None:
        self._client, self._register, self._tick, self._clock = client, register, tick, clock

    def __call__(self) -> Found:
        """How many executions are open, how many overdue, and when the scheduler last looked, if it ever did."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zcard(self._register)
            pipe.zcount(self._register, "-inf", self._clock() - _OVERDUE_SECONDS)
            pipe.get(self._tick)
            opened, overdue, tick = pipe.execute()
        found = {EXECUTIONS_OPEN: opened, EXECUTIONS_OVERDUE: overdue, BEAT_TICK: tick}
        return {metric: {(): float(value)} for metric, value in found.items() if value is not None}
