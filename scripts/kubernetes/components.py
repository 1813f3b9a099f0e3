"""What a cluster with KEDA or with Prometheus' operator has besides: docker/kubernetes/components."""

from config.workers import GRACE_SECONDS, Worker
from scripts.kubernetes.base import PART_OF, Object, allowed, kustomized, made
from scripts.kubernetes.processes import MONITOR, PROCESSES

# The overlay puts its namespace in, the second word of the host: KEDA asks from another.
_PAGE = f"http://monitor.unstract-workers.svc:{MONITOR.port}/metrics"
_KEDA = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}},
    "podSelector": {"matchLabels": {"app": "keda-operator"}},
}


def autoscaling() -> dict[str, list[Object]]:
    """A ScaledObject for each worker, over what the monitor shows."""
    files = {
        process.name: [made("ScaledObject", "keda.sh/v1alpha1", process, spec=_scaled(process.name, process.worker))]
        for process in PROCESSES
        if process.worker
    }
    # Who applies this again must not undo what the autoscaler has done since.
    target = {"kind": "Deployment", "name": "|".join(files)}
    patches = [{"target": target, "patch": "- {op: remove, path: /spec/replicas}\n"}]
    policy = allowed(MONITOR, _KEDA)
    policy["metadata"]["name"] = "monitor-from-keda"
    files["monitor"] = [policy]
    return kustomized(files, "Component", "v1alpha1", patches=patches)


def _scaled(deployment: str, worker: Worker) -> Object:
    scaling, queues = worker.scaling, worker.queues
    stands = {f"stands_{queue}": queue for queue in queues}
    longest = f"max({', '.join(stands)})" if len(stands) > 1 else next(iter(stands))
    # A replica for so many messages, and one more for each time that the queue which stands longest may stand.
    formula = f"{' + '.join(queues)} + {scaling.queue_depth} * floor({longest} / {scaling.age})"
    # One goes at a time, and the next when that has given its work back and is gone.
    calmly = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": GRACE_SECONDS}]}
    waiting = [_trigger(queue, "celery_queue_length", queue, scaling.queue_depth) for queue in queues]
    standing = [
        _trigger(name, "workers_queue_standstill_seconds", queue, scaling.age) for name, queue in stands.items()
    ]
    return {
        "scaleTargetRef": {"name": deployment},
        "minReplicaCount": scaling.least,
        "maxReplicaCount": scaling.most,
        "advanced": {
            "scalingModifiers": {"formula": formula, "target": str(scaling.queue_depth), "metricType": "AverageValue"},
            "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": calmly}},
        },
        "triggers": waiting + standing,
    }


def _trigger(name: str, metric: str, queue: str, target: int) -> Object:
    location = f'{metric}{{queue_name="{queue}"}}'
    metadata = {"url": _PAGE, "format": "prometheus", "valueLocation": location, "targetValue": str(target)}
    return {"type": "metrics-api", "name": name, "metadata": metadata}


def prometheus_operator(alerts: Object) -> dict[str, list[Object]]:
    """What Prometheus reads, one job for all, and the alerts."""
    common = {"apiVersion": "monitoring.coreos.com/v1", "metadata": {"name": "workers", "labels": PART_OF}}
    # The job's name is the one that public dashboards for Celery ask for.
    job = [{"targetLabel": "job", "replacement": "celery"}]
    endpoint = {"port": "health", "path": "/metrics", "interval": "15s", "relabelings": job}
    monitored = {"selector": {"matchLabels": PART_OF}, "podMetricsEndpoints": [endpoint]}
    files = {
        "podmonitor": [common | {"kind": "PodMonitor", "spec": monitored}],
        "prometheusrule": [common | {"kind": "PrometheusRule", "spec": alerts}],
    }
    return kustomized(files, "Component", "v1alpha1")
