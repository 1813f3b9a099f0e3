"""The rules for Prometheus: they load, fire and keep silent, name what there is, and somebody knows what to do."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.queue_routing import DEAD_LETTERS, QUEUES, Priority
from config.workers import MONITOR_HEALTH_PORT, WORKERS
from monitoring import prometheus_metrics as metrics
from monitoring.registry import DECLARED
from shared.endpoints import HEALTH
from shared.heartbeat import Heartbeat
from tests.conftest import Promtool
from tests.monitoring.promql import named, undeclared

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "monitoring" / "alerts.yml"
TESTS = Path(__file__).parent / "alerts_test.yml"
OPERATIONS = (ROOT / "OPERATIONS.md").read_text()


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


RULES = rules()
NAMES = {rule["alert"] for rule in RULES}


def cases() -> Iterator[tuple[str, bool]]:
    """The alert of each case, and whether it is to fire."""
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            yield case["alertname"], bool(case["exp_alerts"])


def runbook() -> str:
    return OPERATIONS.partition("\n## Alerts\n")[2].partition("\n## ")[0]


def rule_of_class(priority: Priority) -> dict[str, Any]:
    (found,) = (rule for rule in RULES if rule["labels"].get("class") == priority)
    return found


def test_prometheus_takes_the_rules(promtool: Promtool) -> None:
    checked = promtool("check", "rules", "--lint-fatal", str(ALERTS))
    assert checked.returncode == 0, checked.stderr


def test_every_alert_fires_and_keeps_silent_when_it_should(promtool: Promtool) -> None:
    ran = promtool("test", "rules", str(TESTS))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {name for name, fires in cases() if fires} == NAMES
    assert {name for name, fires in cases() if not fires} == NAMES


@pytest.mark.parametrize("rule", RULES, ids=[f"{rule['alert']} {rule['labels'].get('class', '')}" for rule in RULES])
def test_an_alert_names_what_there_is_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert undeclared(rule["expr"]) == []
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"OPERATIONS.md#{rule['alert'].lower()}"


def test_no_alert_depends_on_how_a_job_is_called() -> None:
    assert not [rule["alert"] for rule in RULES if re.search(r"\bjob\s*[=!]", rule["expr"])]


def test_every_alert_is_in_the_runbook_and_nothing_else_is() -> None:
    assert re.findall(r"^### (\w+)$", runbook(), re.MULTILINE) == list(dict.fromkeys(rule["alert"] for rule in RULES))


@pytest.mark.parametrize("paragraph", re.split(r"^### ", runbook(), flags=re.MULTILINE)[1:])
def test_the_runbook_says_of_each_what_it_means_who_notices_where_to_look_and_what_to_do(paragraph: str) -> None:
    for question in ("Means:", "Users notice:", "Look:", "Do:"):
        assert f"**{question}**" in " ".join(paragraph.split())


@pytest.mark.parametrize("priority", Priority)
def test_a_queue_may_stand_still_as_long_as_the_autoscaler_lets_it(priority: Priority) -> None:
    expression = rule_of_class(priority)["expr"]
    queues, seconds = re.findall(r'queue_name=~"([^"]+)"} > (\d+)', expression)[0]
    mine = [queue for queue, its in QUEUES.items() if its is priority]
    assert sorted(queues.split("|")) == sorted(mine)
    ages = {worker.scaling.age for worker in WORKERS.values() if worker.priority is priority}
    assert {int(seconds)} == ages


def test_everything_that_is_dropped_is_somebodys_alert() -> None:
    dropped = {name for name in DECLARED if name.endswith("_dropped_total")}
    assert dropped == {name for rule in RULES for name in named(rule["expr"]) if name.endswith("_dropped_total")}
    # Of messages, those that are kept are counted where they are, and what an operator revoked is no loss.
    kept = set(metrics.MESSAGES_DROPPED.labels["reason"]) - {"unfinished", "revoked"}
    assert all(reason in metrics.MESSAGES_DROPPED.about.partition("Gone:")[0] for reason in kept)
    assert f'"{DEAD_LETTERS}"' in next(rule["expr"] for rule in RULES if rule["alert"] == "DeadLetters")


def test_what_the_rules_repeat_of_the_code_is_so() -> None:
    expressions = {rule["alert"]: rule["expr"] for rule in RULES}
    assert expressions["LoopHangs"].endswith(f"> {Heartbeat.LONGEST_SECONDS:g}")
    assert f'route!="{HEALTH({}).endpoint.route}"' in expressions["CircuitOpen"]


@pytest.mark.parametrize(
    "block", [found for found in re.findall(r"```yaml\n(.*?)```", OPERATIONS, re.DOTALL) if "scrape_configs" in found]
)
def test_prometheus_takes_the_configurations_that_we_show(block: str, promtool: Promtool, tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text())
    # Debian's does not know Kubernetes.
    (tmp_path / "prometheus.yml").write_text(
        block.replace("kubernetes_sd_configs: [{role: pod}]", "static_configs: []")
    )
    checked = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert checked.returncode == 0, checked.stderr
    assert "job_name: celery" in block


def test_the_first_configuration_has_the_port_of_each_process() -> None:
    shown = {name: int(port) for name, port in re.findall(r"names: \[(\w+)\], type: A, port: (\d+)", OPERATIONS)}
    assert shown == {worker.name: worker.health_port for worker in WORKERS.values()} | {"monitor": MONITOR_HEALTH_PORT}
