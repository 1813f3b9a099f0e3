"""What the manifests have for a cluster with KEDA or with Prometheus' operator."""

import math
import re
import shutil
from pathlib import Path

import pytest
import yaml

from config.workers import GRACE_SECONDS, MONITOR_HEALTH_PORT, Worker
from monitoring.prometheus_metrics import QUEUE_LENGTH, QUEUE_STANDSTILL
from tests.deployment.manifests import DASHED, OVERLAYS, PORTS, ROOT, Object, Rendered, container, overlay, rendered

METRICS = (QUEUE_LENGTH, QUEUE_STANDSTILL)


@pytest.fixture(params=["staging", "production"])
def scaled(request: pytest.FixtureRequest) -> Rendered:
    """Each overlay with an autoscaler."""
    return overlay(request.param)


def test_replicas_are_the_registrys_where_nobody_scales() -> None:
    replicas = {name: each["spec"]["replicas"] for name, each in overlay("development").of("Deployment").items()}
    least = {name: worker.scaling.least for name, worker in DASHED.items()}
    assert replicas == least | {"beat": 1, "monitor": 1}


def test_the_autoscaler_alone_says_how_many_workers_there_are(scaled: Rendered) -> None:
    fixed = {
        name: each["spec"]["replicas"] for name, each in scaled.of("Deployment").items() if "replicas" in each["spec"]
    }
    assert fixed == {"beat": 1, "monitor": 1}
    objects = scaled.of("ScaledObject")
    assert objects.keys() == DASHED.keys()
    for name, worker in DASHED.items():
        spec = objects[name]["spec"]
        assert spec["scaleTargetRef"] == {"name": name}
        least = max(worker.scaling.least, 2 if scaled.environment == "production" else 1)
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (least, worker.scaling.most)
        (policy,) = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"]
        assert policy == {"type": "Pods", "value": 1, "periodSeconds": GRACE_SECONDS}


def test_the_autoscaler_asks_the_monitor_for_what_it_shows(scaled: Rendered) -> None:
    namespace = f"unstract-workers-{scaled.environment}"
    for name, worker in DASHED.items():
        asked = [trigger["metadata"] for trigger in scaled.of("ScaledObject")[name]["spec"]["triggers"]]
        assert {each["url"] for each in asked} == {f"http://monitor.{namespace}.svc:{MONITOR_HEALTH_PORT}/metrics"}
        series = [re.fullmatch(r'(\w+)\{queue_name="(\w+)"\}', each["valueLocation"]) for each in asked]
        found = [one.groups() for one in series if one]
        assert found == [(metric.name, queue) for metric in METRICS for queue in worker.queues]
        assert all(list(metric.labels) == ["queue_name"] for metric in METRICS)
    policy = scaled.of("NetworkPolicy")["monitor-from-keda"]["spec"]
    assert [way["port"] for rule in policy["ingress"] for way in rule["ports"]] == [MONITOR_HEALTH_PORT]
    assert all(
        peer.keys() == {"namespaceSelector", "podSelector"} for rule in policy["ingress"] for peer in rule["from"]
    )


def _wanted(spec: Object, worker: Worker, waiting: int, standing: float) -> int:
    """Replicas for so many messages in each queue, the last of which stands still. The formula is Python too."""
    names = [trigger["name"] for trigger in spec["triggers"]]
    values: dict[str, float] = dict.fromkeys(names[: len(worker.queues)], waiting) | dict.fromkeys(
        names[len(worker.queues) :], 0
    )
    values[names[-1]] = standing
    modifiers = spec["advanced"]["scalingModifiers"]
    assert all(name.isidentifier() for name in names)
    total: float = eval(modifiers["formula"], {"__builtins__": {}, "max": max, "floor": math.floor}, values)  # noqa: S307
    return math.ceil(total / float(modifiers["target"]))


@pytest.mark.parametrize("name", DASHED)
def test_replicas_follow_what_waits_and_for_how_long_it_stands(name: str) -> None:
    worker, spec = DASHED[name], overlay("staging").of("ScaledObject")[name]["spec"]
    depth, age, queues = worker.scaling.queue_depth, worker.scaling.age, len(worker.queues)
    assert _wanted(spec, worker, 0, 0) == 0
    assert _wanted(spec, worker, depth, 0) == queues
    assert _wanted(spec, worker, depth, age - 1) == queues
    assert _wanted(spec, worker, depth, age) == queues + 1
    assert _wanted(spec, worker, depth, 3 * age) == queues + 3


def test_prometheus_has_the_alerts_and_the_port_that_has_metrics(scaled: Rendered) -> None:
    alerts = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())
    assert scaled.of("PrometheusRule")["workers"]["spec"] == alerts
    (endpoint,) = scaled.of("PodMonitor")["workers"]["spec"]["podMetricsEndpoints"]
    named = [name for name, pod in scaled.pods().items() if container(pod)["ports"][0]["name"] == endpoint["port"]]
    assert sorted([*named, "beat"]) == sorted(PORTS)


def test_an_overlay_may_leave_them_out(tmp_path: Path) -> None:
    shutil.copytree(OVERLAYS.parent, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "overlays" / "production" / "kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text())
    del kustomization["components"]
    kustomization["replicas"] = [{"name": name, "count": 2} for name in DASHED]
    file.write_text(yaml.safe_dump(kustomization))
    made = Rendered("production", rendered(file.parent))
    replicas = {name: each["spec"]["replicas"] for name, each in made.of("Deployment").items()}
    assert replicas == dict.fromkeys(DASHED, 2) | {"beat": 1, "monitor": 1}
    assert {each["kind"] for each in made.objects}.isdisjoint({"ScaledObject", "PodMonitor", "PrometheusRule"})
