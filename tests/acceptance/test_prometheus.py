"""A real Prometheus reads a real fleet: what dashboards and alerts ask for is there, and nothing is alarming."""

import json
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from config.queue_routing import QUEUES
from monitoring import prometheus_metrics as metrics
from sandbox.stack import FOUR, Stack, StackError, free_ports, wait_for
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import counts, documents, finish
from tests.conftest import installed
from tests.monitoring.promql import named, substituted
from tests.monitoring.test_alerts import ALERTS, RULES
from tests.monitoring.test_dashboards import ALL

PROCESSES = (*FOUR, "monitor")  # the scheduler has no metrics
# Begin to exist with the first of what should not happen, or need not. A fleet in fair weather has none of them.
UNUSUAL = {
    metric.name
    for metric in (
        metrics.TASK_REJECTED,
        metrics.TASK_REVOKED,
        metrics.TASK_HANDED_BACK,
        metrics.TASK_DUPLICATE,
        metrics.MESSAGES_FORWARDED,
        metrics.BACKEND_RETRIES,
        metrics.WORKFLOW_RUNS,
        metrics.WORKFLOW_STEPS,
    )
} | {"ALERTS", *(f"{one.name}_bucket" for one in (metrics.WORKFLOW_RUN_SECONDS, metrics.WORKFLOW_STEP_SECONDS))}
_FAILURES = 'outcome!~"ok|refused"'
EXPRESSIONS = (*ALL, *(rule["expr"] for rule in RULES))
# What rules compare has the same labels, or they would be silent for ever.
JOINS = {
    "workers_queue_standstill_seconds and celery_queue_length and celery_active_consumer_count": len(QUEUES) + 1,
    "celery_worker_up and on (hostname) workers_pool_slots": len(FOUR),
    "up and on (job, instance) last_over_time(workers_build_info[1d])": len(PROCESSES),
    "workers_circuit_breaker_state and on (job, instance) sum by (job, instance) (workers_backend_requests_total)": 12,
    'workers_monitor_source_ok{source="state_store"} and ignoring (source) workers_beat_last_tick_timestamp_seconds': 1,
}


class Prometheus:
    """A server that reads every process of a stack each second, with our rules."""

    def __init__(self, stack: Stack) -> None:
        (self._port,) = free_ports(1)
        folder = stack.folder / "prometheus"
        folder.mkdir()
        targets = [f"127.0.0.1:{stack.health_ports[name]}" for name in PROCESSES]
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": "celery", "static_configs": [{"targets": targets}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        stack.start(
            "prometheus",
            [
                installed("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
        )
        wait_for(self._ready, 20, "Prometheus")

    def _ready(self) -> bool:
        with suppress(OSError):
            return self._get("/-/ready")[0] == 200
        return False

    def _get(self, path: str) -> tuple[int, bytes]:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=10)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def ask(self, path: str) -> Any:
        """What a page of its API says."""
        status, body = self._get(f"/api/v1/{path}")
        assert status == 200, body
        return json.loads(body)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        found: list[dict[str, Any]] = self.ask(f"query?query={quote(expression)}")["result"]
        return found


@pytest.fixture
def prometheus(start_fleet: Callable[..., Fleet], tmp_path: Path) -> Prometheus:
    """It has read a fleet of four workers, scheduler and monitor, after two executions."""
    installed("prometheus")
    stack, driver = start_fleet()
    stack.start_beat()
    stack.start_monitor()
    server = Prometheus(stack)
    wait_for(lambda: stack.ready("beat") and stack.ready("monitor"), 30, "scheduler and monitor")
    deployment = driver.deploy("read", batches=2)
    source = tmp_path / "source"
    source.mkdir()
    wanted = {"organization": "read", "workflow_type": "ETL", "name": "read", "source_folder": str(source)}
    made = driver.control("POST", "setup/", {**wanted, "destination_table": "notes", "max_parallel_file_batches": 2})
    runs = [driver.post(deployment, documents(source, 3)), driver.start_pipeline(made)]
    for run in runs:
        assert counts(finish(driver, run)) == ("COMPLETED", 3, 3, 0)
    return server


def test_prometheus_finds_all_that_dashboards_and_alerts_ask_for(prometheus: Prometheus) -> None:
    wait_for(lambda: len(prometheus.query("up == 1")) == len(PROCESSES), 20, "every process to be read")
    assert {one["health"] for one in prometheus.ask("targets?state=active")["activeTargets"]} == {"up"}

    groups = prometheus.ask("rules")["groups"]
    loaded = [rule["name"] for group in groups for rule in group["rules"]]
    assert sorted(loaded) == sorted(rule["alert"] for rule in RULES)
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}

    expected = {name for expression in EXPRESSIONS for name in named(expression)} - UNUSUAL
    wait_for(lambda: expected <= set(prometheus.ask("label/__name__/values")), 10, "every series to be there")
    # Those that ask for what is unusual find nothing now.
    usual = [substituted(each) for each in ALL if not named(each) & UNUSUAL and _FAILURES not in each]

    def empty() -> list[str]:
        return [each for each in usual if not prometheus.query(each)]

    with suppress(StackError):
        wait_for(lambda: empty() == [], 10, "data for every panel")
    assert empty() == []
    for join, count in JOINS.items():
        assert len(prometheus.query(join)) == count, join

    assert prometheus.query("sum(rate(process_cpu_seconds_total[30s]))")[0]["value"][1] != "0"
    assert prometheus.query("sum(workers_executions_total)")[0]["value"][1] == "2"
    assert prometheus.query("sum(workers_files_total)")[0]["value"][1] == "6"
    # Of memory the machine decides.
    wait_for(
        lambda: {one["labels"]["alertname"] for one in prometheus.ask("alerts")["alerts"]} <= {"MemoryNearLimit"},
        10,
        "nothing to be alarming",
    )
