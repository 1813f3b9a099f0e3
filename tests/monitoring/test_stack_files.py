"""What the compose stack gives Prometheus and Grafana: it loads, and names what there is."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from config.workers import LAYOUTS, MONITOR_HEALTH_PORT
from monitoring.registry import DECLARED
from scripts.dashboards import FOLDER
from tests.conftest import Promtool
from tests.monitoring.test_alerts import ALERTS, RULES

ROOT = Path(__file__).resolve().parents[2]
STACK = ROOT / "docker" / "monitoring"
PROMETHEUS, GRAFANA = STACK / "prometheus.yml", STACK / "grafana"
COMPOSE = yaml.safe_load((ROOT / "docker" / "docker-compose.workers.yml").read_text())
# The layouts that compose has a profile for.
DEPLOYED = ("workers", "fast-slow", "all-in-one")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


(JOB,) = read(PROMETHEUS)["scrape_configs"]
(SOURCE,) = read(GRAFANA / "datasources.yml")["datasources"]
(PROVIDER,) = read(GRAFANA / "dashboards.yml")["providers"]


def test_prometheus_takes_the_configuration_and_the_rules_beside_it(promtool: Promtool, tmp_path: Path) -> None:
    for path in (PROMETHEUS, ALERTS):
        shutil.copy(path, tmp_path)
    checked = promtool("check", "config", "--lint-fatal", str(tmp_path / PROMETHEUS.name))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULES)} rules found" in checked.stdout


def test_every_process_of_every_layout_is_read_on_its_port_and_nothing_else() -> None:
    found = {name: found["port"] for found in JOB["dns_sd_configs"] for name in found["names"]}
    profiles = [profile for layout in DEPLOYED for profile in LAYOUTS[layout]]
    expected = {profile.name.replace("_", "-"): profile.health_port for profile in profiles}
    assert found == expected | {"monitor": MONITOR_HEALTH_PORT}
    assert {found["type"] for found in JOB["dns_sd_configs"]} == {"A"}


def test_labels_of_targets_hide_none_of_a_metric() -> None:
    added = {rule["target_label"] for rule in JOB["relabel_configs"]}
    assert added == {"service"}
    assert not added & {label for metric in DECLARED.values() for label in metric.labels}


def test_alerts_about_targets_find_the_labels_they_are_joined_by() -> None:
    """Job and instance are as Prometheus makes them, one of each for each process."""
    assert JOB["job_name"] == "celery"
    assert not {"job", "instance"} & {rule["target_label"] for rule in JOB["relabel_configs"]}


def test_dashboards_find_their_source_chosen() -> None:
    """Each takes the default source of a type until somebody chooses another."""
    wanted = set()
    for path in FOLDER.glob("*.json"):
        variables = {one["name"]: one for one in json.loads(path.read_text())["templating"]["list"]}
        wanted.add(variables["datasource"]["query"])
    assert wanted == {SOURCE["type"]}
    assert SOURCE["isDefault"] is True
    assert SOURCE["jsonData"]["timeInterval"] == read(PROMETHEUS)["global"]["scrape_interval"]


def mounts(service: str) -> dict[str, Path]:
    """The files that compose gives a service, by where it finds them."""
    pairs = (volume.split(":") for volume in COMPOSE["services"][service]["volumes"])
    return {found[1]: (ROOT / "docker" / found[0]).resolve() for found in pairs if found[0].startswith(".")}


def test_each_finds_its_files_where_compose_puts_them() -> None:
    assert mounts("prometheus") == {"/etc/prometheus/prometheus.yml": PROMETHEUS, "/etc/prometheus/alerts.yml": ALERTS}
    found = mounts("grafana")
    assert found.pop(PROVIDER["options"]["path"]) == FOLDER
    folders = {str(Path(target).parent): source for target, source in found.items()}
    assert folders == {
        "/etc/grafana/provisioning/datasources": GRAFANA / "datasources.yml",
        "/etc/grafana/provisioning/dashboards": GRAFANA / "dashboards.yml",
    }


def test_the_names_are_those_of_services() -> None:
    assert {name for found in JOB["dns_sd_configs"] for name in found["names"]} <= set(COMPOSE["services"])
    assert SOURCE["url"] == "http://prometheus:9090"
    assert "prometheus" in COMPOSE["services"]
