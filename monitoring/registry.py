"""How metrics are declared and kept: in this process, or in files that the processes of a prefork pool share.

https://prometheus.github.io/client_python/multiprocess/
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector

NODE = "hostname"  # what public dashboards for Celery call the name of a worker's node
MAIN = "main"

# Names of labels, each with the values that it may have, or none where these are names that are declared elsewhere.
Labels = Mapping[str, tuple[str, ...]]
Reading = Callable[[], Mapping[tuple[str, ...], float]]


class UndeclaredError(KeyError):
    """A metric was declared twice, or a number came with labels that its metric does not have."""


class Metric:
    """One metric, as it is declared. Thread-safe, and across forks.

    Args:
        kind: counter, gauge or histogram.
        name: as Prometheus shows it; a counter's ends in `_total`.
        about: what it counts, in which unit.
        labels: `hostname` is filled in here, with the name of the node.
        buckets: a histogram's upper bounds.
    """

    def __init__(
        self, kind: str, name: str, about: str, labels: Labels | None = None, *, buckets: tuple[float, ...] = ()
    ) -> None:
        if name in DECLARED:
            raise UndeclaredError(f"{name} is declared twice")
        DECLARED[name] = self
        self.kind, self.name, self.about, self.labels = kind, name, about, labels or {}
        self.buckets = buckets
        self._given = self.labels.keys() - {NODE}
        self._made: Any = None
        self._children: dict[tuple[tuple[str, str], ...], Any] = {}

    # Each of these three looks for its child itself: one call more costs as much as the look.
    def inc(self, by: float = 1, /, **labels: str) -> None:
        """Count."""
        child = self._children.get(tuple(labels.items())) or self._child(labels)
        if child is not None:
            with _FORK:
                child.inc(by)

    def set(self, value: float, /, **labels: str) -> None:
        """Say how much there is."""
        child = self._children.get(tuple(labels.items())) or self._child(labels)
        if child is not None:
            with _FORK:
                child.set(value)

    def observe(self, value: float, exemplar: dict[str, str] | None = None, /, **labels: str) -> None:
        """Count one of that size. The exemplar, a trace's id, is shown to who asks for OpenMetrics."""
        child = self._children.get(tuple(labels.items())) or self._child(labels)
        if child is not None:
            with _FORK:
                child.observe(value, exemplar)

    def read(self, reading: Reading) -> None:
        """Have it read whenever somebody asks, and never counted: its values by those of all its labels, in order.

        A counter is to be told so before this process begins to count.
        """
        KEPT.readings[self.name] = reading

    def begin(self) -> None:
        """Forget what was counted. A counter whose labels are known begins at 0, or its first would be no increase."""
        self._made, self._children = None, {}
        if self.kind == "counter" and self.name not in KEPT.readings and all(self.labels[name] for name in self._given):
            for known in product(*(self.labels[name] for name in self._given)):
                self._child(dict(zip(self._given, known, strict=True)))

    def _child(self, labels: dict[str, str]) -> Any:
        """What counts for these labels, which has not yet."""
        if labels.keys() != self._given or any(self._unknown(name, value) for name, value in labels.items()):
            return KEPT.undeclared(f"{self.name} has labels {dict(self.labels)}, not {labels}")
        with _FORK:
            child = self._children[tuple(labels.items())] = self._make(labels)
        return child

    def _unknown(self, name: str, value: str) -> bool:
        return bool(self.labels[name]) and value not in self.labels[name]

    def _make(self, labels: dict[str, str]) -> Any:
        if self._made is None:
            self._made = KEPT.make(self)
        if not self.labels:
            return self._made
        return self._made.labels(**labels, **({NODE: KEPT.node} if NODE in self.labels else {}))


class Kept:
    """What this process counts, and what the pool does that it may be one of.

    Attributes:
        strict: whether undeclared labels raise, as in tests; otherwise their number is left out, and work goes on.
        node: the name of the node.
        folder: where the processes of a pool count, if this is one of them.
        process: which of them this is.
        readings: what is read whenever somebody asks, by the metric's name.
    """

    def __init__(self) -> None:
        self.strict = False
        self.node, self.process = "", MAIN
        self.folder: Path | None = None
        self.readings: dict[str, Reading] = {}
        self._registry = CollectorRegistry()

    def begin(self, node: str, folder: Path | None = None) -> None:
        """Begin at nothing, in a process of that name.

        Args:
            node: its name in Celery.
            folder: where its children count too, if it has any; empty. The client wants it in the environment as
                well, as PROMETHEUS_MULTIPROC_DIR, which is the caller's to set.
        """
        self.node, self.folder, self.process = node, folder, MAIN
        # The client chooses when it is imported, which is before the pool is known.
        values.ValueClass = values.MultiProcessValue(lambda: self.process) if folder else values.MutexValue
        self._registry = CollectorRegistry()
        for metric in DECLARED.values():
            metric.begin()

    def join(self, place: int) -> None:
        """Count as a child of a pool: in the files of its place there, where its predecessor did.

        So there are never more files than places, however often children are replaced, and counters go on.
        """
        self.process = f"child{place}"
        self.drop_gauges(lambda process: process == self.process)

    def drop_gauges(self, gone: Callable[[str], bool]) -> None:
        """Forget what processes that are gone said of themselves."""
        for path in self.folder.glob("gauge_live*_*.db") if self.folder else ():
            if gone(path.stem.rpartition("_")[2]):
                path.unlink(missing_ok=True)

    def make(self, metric: Metric) -> Any:
        """The client's own metric."""
        declared = (metric.name, metric.about, tuple(metric.labels))
        if metric.kind == "counter":
            return Counter(*declared, registry=self._registry)
        if metric.kind == "gauge":
            return Gauge(*declared, registry=self._registry, multiprocess_mode="livemax")
        return Histogram(*declared, registry=self._registry, buckets=metric.buckets)

    def undeclared(self, what: str) -> None:
        """A number that nothing is declared for."""
        if self.strict:
            raise UndeclaredError(what)

    def counted(self) -> Iterator[Family]:
        """All that was counted, by every process of the pool."""
        if self.folder is None:
            yield from self._registry.collect()
            return
        yield from MultiProcessCollector.merge([str(path) for path in self.folder.glob("*.db") if _written(path)])

    def collect(self) -> Iterator[Family]:
        """All that was counted, by every process of the pool, and what is read now."""
        yield from self.counted()
        for name, reading in list(self.readings.items()):
            metric = DECLARED[name]
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(name, metric.about, labels=list(metric.labels))
            for key, value in reading().items():
                family.add_metric(key, value)
            yield family

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """What Prometheus reads, as its `Accept` asks for it; and its content type."""
        try:
            encode, kind = choose_encoder(accept)
        except ValueError:  # a version that is none
            encode, kind = choose_encoder("")
        return encode(self), kind

    def value(self, name: str, /, **labels: str) -> float:
        """One number, the sum of those that these labels are among; 0 where nothing was counted."""
        found = (sample for family in self.collect() for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in found if labels.items() <= sample.labels.items())


def _written(path: Path) -> bool:
    """Whether there is something in a file: a child makes it first, and a dead one's gauges may go meanwhile."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


disable_created_metrics()  # a series more for each, which nobody reads
DECLARED: dict[str, Metric] = {}
KEPT = Kept()
# Held by who counts, and during a fork: the client's own locks could stay locked in the child.
_FORK = threading.RLock()
os.register_at_fork(before=_FORK.acquire, after_in_parent=_FORK.release, after_in_child=_FORK.release)
