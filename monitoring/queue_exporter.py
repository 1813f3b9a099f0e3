"""The numbers of queues, workers and executions, from sources that are asked in rounds of their own, never by a scrape.

A source that does not answer has no numbers: they go, instead of staying as they were, and come back with it.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from amqp.exceptions import AMQPError
from kombu.exceptions import ContentDisallowed, OperationalError
from redis import RedisError

from monitoring.prometheus_metrics import (
    BEAT_TICK,
    EXECUTIONS_OPEN,
    EXECUTIONS_OVERDUE,
    MONITOR_ASKED,
    QUEUE_CONSUMERS,
    QUEUE_LENGTH,
    QUEUE_STANDSTILL,
    QUEUE_UNACKNOWLEDGED,
    WORKER_TASKS,
    WORKER_UP,
)
from monitoring.registry import Metric

Numbers = Mapping[tuple[str, ...], float]
Found = Mapping[Metric, Numbers]
Source = Callable[[], Found]
"""Asks, within seconds. What it found, by metric and values of labels; one of FAILURES if it got no answer."""

Clock = Callable[[], float]
Report = Callable[[str, Exception | None], None]
"""Hears of a source that stops answering, with the reason, and of one that answers again, without."""

FAILURES = (
    *(OperationalError, AMQPError, RedisError, http.client.HTTPException, OSError),
    *(AttributeError, LookupError, TypeError, ValueError),
    ContentDisallowed,
)
"""All the ways in which a broker, a state store or an API gives no answer, or one that makes no sense."""

# Of a round that takes longer nobody knows whether it will end. Every wait in it is shorter, but there are several.
_ROUND_SECONDS = 4.0
_SHOWN = (
    BEAT_TICK,
    EXECUTIONS_OPEN,
    EXECUTIONS_OVERDUE,
    QUEUE_CONSUMERS,
    QUEUE_LENGTH,
    QUEUE_STANDSTILL,
    QUEUE_UNACKNOWLEDGED,
    WORKER_TASKS,
    WORKER_UP,
)


class Standstill:
    """For how long queues have stood still, by all that says of one that it moved. Counts from when it is first seen.

    Args:
        clock: seconds, steadily growing.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._moved: dict[str, float] = {}

    def moved(self, queue: str) -> None:
        """Something was taken from it."""
        self._moved[queue] = self._clock()

    def seconds(self, queue: str, depth: int) -> float:
        """Seconds since it moved, or was empty."""
        now = self._clock()
        if not depth:
            self._moved[queue] = now
        return max(0.0, now - self._moved.setdefault(queue, now))  # another thread may have seen it move just now


class Exporter:
    """Asks each source in a thread of its own, so that none waits for another.

    Args:
        sources: by their names, which are those of `MONITOR_ASKED`.
        interval: seconds between two rounds.
        report: hears what becomes of sources.
        clock: seconds, steadily growing.
    """

    def __init__(
        self, sources: Mapping[str, Source], interval: float, report: Report, clock: Clock = time.monotonic
    ) -> None:
        self._interval, self._clock = interval, clock
        self._askers = {name: _Asker(name, source, report, clock) for name, source in sources.items()}

    def start(self) -> None:
        """Begin the rounds, and have what they find shown. They end with the process."""
        for metric in _SHOWN:
            metric.read(partial(self.numbers, metric))
        MONITOR_ASKED.read(self.answering)
        for name in self._askers:
            threading.Thread(target=self._go_round, args=(name,), name=name, daemon=True).start()

    def _go_round(self, name: str) -> None:
        while True:
            self.ask(name)
            time.sleep(self._interval)

    def ask(self, name: str) -> None:
        """Make one round of a source."""
        self._askers[name].ask()

    def numbers(self, metric: Metric) -> Numbers:
        """What is known of a metric now."""
        return {key: value for found in self._found() for key, value in found.get(metric, {}).items()}

    def _found(self) -> Iterator[Found]:
        return (asker.found for asker in self._askers.values() if asker.found is not None and self._young(asker))

    def _young(self, asker: "_Asker") -> bool:
        return self.age_of(asker.name) <= self._interval + _ROUND_SECONDS

    def answering(self) -> dict[tuple[str, ...], float]:
        """Whether each source that was asked has answered: 1 or 0."""
        asked = (asker for asker in self._askers.values() if asker.asked)
        return {(asker.name,): float(asker.found is not None and self._young(asker)) for asker in asked}

    def age_of(self, name: str) -> float:
        """Seconds since a source's round last ended, answered or not."""
        return self._clock() - self._askers[name].ended

    @property
    def age(self) -> float:
        """That of the source whose round has not ended for the longest time."""
        return max(map(self.age_of, self._askers))

    @property
    def asked(self) -> bool:
        """Whether every source has been asked, so that there is something to show."""
        return all(asker.asked for asker in self._askers.values())


class _Asker:
    """A source, and what it last said: None if that was nothing."""

    def __init__(self, name: str, source: Source, report: Report, clock: Clock) -> None:
        self.name, self.asked, self.ended = name, False, clock()
        self.found: Found | None = None
        self._source, self._report, self._clock = source, report, clock

    def ask(self) -> None:
        silent = self.asked and self.found is None
        try:
            self.found = self._source()
        except FAILURES as error:
            self.found = None
            if not silent:
                self._report(self.name, error)
        else:
            if silent:
                self._report(self.name, None)
        self.asked, self.ended = True, self._clock()
