"""The dashboards for Grafana: as the code says, over metrics that there are, in queries that Prometheus takes."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.registry import DECLARED
from scripts.dashboards import FOLDER, rendered
from tests.conftest import Promtool
from tests.monitoring.promql import labels_of, metric_of, named, substituted, undeclared

BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
# What public dashboards for Celery read: https://grafana.com/grafana/dashboards/17508 and 17509.
OF_TASKS = ("sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried")
PUBLIC = {
    **{f"celery_task_{event}_total": {"name", "queue_name"} for event in OF_TASKS},
    "celery_task_failed_total": {"name", "queue_name", "exception"},
    "celery_task_runtime_bucket": {"name", "queue_name", "le"},
    "celery_task_runtime_sum": {"name", "queue_name"},
    "celery_task_runtime_count": {"name", "queue_name"},
    "celery_worker_up": {"hostname"},
    "celery_worker_tasks_active": {"hostname"},
    "celery_queue_length": {"queue_name"},
}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


ALL = [expression for board in BOARDS.values() for expression in expressions(board)]


def test_the_files_are_what_the_code_says() -> None:
    """If not: uv run python scripts/dashboards.py."""
    assert {path: path.read_text() for path in FOLDER.glob("*")} == dict(rendered())


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_one_that_grafana_can_import(name: str) -> None:
    board = BOARDS[name]
    assert board["schemaVersion"] >= 39  # Grafana 11 and later; older ones take it too
    assert board["uid"] == f"workers-{name}"
    assert len(board["uid"]) <= 40
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert all(panel["targets"] for panel in panels(board))
    for panel in panels(board):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_lies_on_another_and_no_line_has_a_gap(name: str) -> None:
    def covers(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24
        return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

    covered = [covers(panel) for panel in BOARDS[name]["panels"]]
    assert not [True for one, another in combinations(covered, 2) if one & another]
    everything = set().union(*covered)
    assert everything == {(x, y) for x in range(24) for y in range(max(y for _, y in everything) + 1)}


@pytest.mark.parametrize("name", BOARDS)
def test_source_and_jobs_are_chosen_on_the_dashboard(name: str) -> None:
    board = BOARDS[name]
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "job"]
    for panel in panels(board):
        assert {each["datasource"]["uid"] for each in (panel, *panel["targets"])} == {"${datasource}"}
    for expression in expressions(board):
        selectors = re.findall(r"\{[^{}]*\}", expression)
        assert selectors
        assert all('job=~"$job"' in one for one in selectors if "alertstate" not in one), expression


@pytest.mark.parametrize("expression", sorted(set(ALL)))
def test_a_query_names_what_there_is(expression: str) -> None:
    assert undeclared(expression) == []


def test_prometheus_takes_every_query(promtool: Promtool, tmp_path: Path) -> None:
    records = [{"record": f"query:{number}", "expr": substituted(each)} for number, each in enumerate(ALL)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}))
    checked = promtool("check", "rules", str(tmp_path / "queries.yml"))
    assert checked.returncode == 0, checked.stderr


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {metric_of(name) for expression in ALL for name in named(expression)}
    assert DECLARED.keys() - shown == set()


@pytest.mark.parametrize("series", PUBLIC)
def test_public_dashboards_find_what_they_read(series: str) -> None:
    assert PUBLIC[series] <= (labels_of(series) or set())
