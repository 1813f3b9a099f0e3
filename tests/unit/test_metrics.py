"""How metrics are declared and kept, by one process and by those of a pool."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring import prometheus_metrics as metrics
from monitoring.registry import DECLARED, KEPT, Metric, UndeclaredError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def afresh() -> Iterator[None]:
    """Numbers begin at nothing, and do so again for the tests that follow."""
    KEPT.begin("node@here")
    yield
    KEPT.strict = True
    KEPT.readings.clear()
    KEPT.begin("")


@pytest.mark.usefixtures("afresh")
class TestOneProcess:
    def test_what_is_counted_is_shown_with_the_name_of_the_node(self) -> None:
        metrics.TASK_STARTED.inc(name="a", queue_name="q")
        metrics.TASK_STARTED.inc(2, name="a", queue_name="q")
        assert KEPT.value("celery_task_started_total", name="a", hostname="node@here") == 3
        shown = KEPT.exposition()[0].decode()
        assert 'celery_task_started_total{hostname="node@here",name="a",queue_name="q"} 3.0' in shown

    @pytest.mark.parametrize(
        "labels",
        [{}, {"name": "a"}, {"name": "a", "queue_name": "q", "task_id": "1"}, {"name": "a", "queue": "q"}],
    )
    def test_labels_that_are_not_declared_raise_in_tests_and_cost_no_task_otherwise(
        self, labels: dict[str, str]
    ) -> None:
        with pytest.raises(UndeclaredError, match="celery_task_started_total has labels"):
            metrics.TASK_STARTED.inc(**labels)
        KEPT.strict = False
        metrics.TASK_STARTED.inc(**labels)
        assert KEPT.value("celery_task_started_total") == 0

    def test_a_value_that_a_label_may_not_have_raises(self) -> None:
        with pytest.raises(UndeclaredError, match="workers_webhooks_total"):
            metrics.WEBHOOKS.inc(outcome="lost")

    def test_a_name_is_declared_once(self) -> None:
        with pytest.raises(UndeclaredError, match="workers_pages_total is declared twice"):
            Metric("counter", "workers_pages_total", "again")
        assert DECLARED["workers_pages_total"] is metrics.PAGES

    def test_a_counter_of_known_labels_is_there_before_it_counts(self) -> None:
        shown = KEPT.exposition()[0].decode()
        assert 'workers_webhooks_dropped_total{reason="exhausted"} 0.0' in shown
        assert "workers_webhook_marks_dropped_total 0.0" in shown

    def test_the_quantiles_of_a_histogram_can_be_read(self) -> None:
        for seconds in (0.004, 0.2, 0.2, 299):
            metrics.TASK_RUNTIME.observe(seconds, name="a", queue_name="q")
        at_most = {le: KEPT.value("celery_task_runtime_bucket", le=le) for le in ("0.005", "0.25", "120.0", "300.0")}
        assert at_most == {"0.005": 1, "0.25": 3, "120.0": 3, "300.0": 4}

    def test_an_exemplar_is_shown_to_who_asks_for_openmetrics_alone(self) -> None:
        metrics.TASK_RUNTIME.observe(0.2, {"trace_id": "4bf92f"}, name="a", queue_name="q")
        modern, kind = KEPT.exposition("application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert b'# {trace_id="4bf92f"} 0.2' in modern
        plain, kind = KEPT.exposition("text/plain")
        assert kind.startswith("text/plain")
        assert b"4bf92f" not in plain

    def test_what_is_read_is_read_each_time(self) -> None:
        ages = iter([1.0, 2.0])
        metrics.HEARTBEAT.read(lambda: {("node@here",): next(ages)})
        assert [KEPT.value("workers_loop_heartbeat_age_seconds", hostname="node@here") for _ in "ab"] == [1, 2]


def test_names_and_help_are_prometheus_s() -> None:
    for metric in DECLARED.values():
        assert re.fullmatch(r"(workers|celery|process)_[a-z_]+[a-z]", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.about.endswith((".", "missing where the broker does not say."))
        assert not set(metric.labels) & {"task_id", "execution_id", "file_execution_id", "organization_id", "id"}
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert list(metric.buckets) == sorted(set(metric.buckets))


_POOL = """
import os, sys
from pathlib import Path
from monitoring import prometheus_metrics as metrics
from monitoring.registry import KEPT
folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
KEPT.begin("node@here", folder)
metrics.PAGES.inc()
for place in (0, 1, 0):
    pid = os.fork()
    if not pid:
        KEPT.join(place)
        metrics.PAGES.inc(10)
        if place:
            metrics.CIRCUIT_STATE.set(2, group="bulk")
        metrics.TASK_RUNTIME.observe(1, name="a", queue_name="q")
        os._exit(0)
    os.waitpid(pid, 0)
print(KEPT.value("workers_pages_total"), KEPT.value("celery_task_runtime_count"),
      KEPT.value("workers_circuit_breaker_state"), sorted(path.name for path in folder.glob("counter_*")))
KEPT.drop_gauges(lambda process: process == "child1")
print(KEPT.value("workers_circuit_breaker_state"), KEPT.value("workers_pages_total"))
"""


def test_children_count_where_their_predecessors_did_and_what_the_dead_said_of_themselves_goes(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    ran = subprocess.run(
        [sys.executable, "-c", _POOL], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    counted, left = ran.stdout.splitlines()
    assert counted == "31.0 3.0 2.0 ['counter_child0.db', 'counter_child1.db', 'counter_main.db']"
    assert left == "0 31.0"


_FORKS = """
import os, threading
from monitoring import prometheus_metrics as metrics
from monitoring.registry import KEPT
from pathlib import Path
KEPT.begin("node@here", Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
stop = threading.Event()
def count():
    while not stop.is_set():
        metrics.PAGES.inc()
threads = [threading.Thread(target=count) for _ in range(4)]
for thread in threads: thread.start()
for place in range(60):
    pid = os.fork()
    if not pid:
        KEPT.join(place)
        metrics.PAGES.inc()
        os._exit(0)
    os.waitpid(pid, 0)
stop.set()
for thread in threads: thread.join()
print("done")
"""


def test_a_child_that_is_forked_while_others_count_can_count(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    ran = subprocess.run(
        [sys.executable, "-c", _FORKS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
    )
    assert ran.stdout == "done\n"


def test_a_file_that_a_child_is_just_making_costs_no_look(tmp_path: Path) -> None:
    script = (
        _POOL
        + """
(folder / "gauge_livemax_child7.db").touch()
import threading
made = threading.Timer(0.0005, (folder / "gauge_livemax_child7.db").unlink)
made.start()
for _ in range(50):
    KEPT.exposition()
made.join()
print(KEPT.value("workers_pages_total"))
"""
    )
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "31.0"
