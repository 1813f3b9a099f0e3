"""The objects of each process, and what they share: docker/kubernetes/base."""

from collections.abc import Sequence
from typing import Any

from config.queue_routing import ROUTES
from config.workers import DRAIN_SECONDS, GRACE_SECONDS, Room
from scripts.kubernetes.processes import BEAT, KEYS, MONITOR, PROCESSES, Process

Object = dict[str, Any]

PART_OF = {"app.kubernetes.io/part-of": "unstract-workers"}
_SECRETS = "/run/secrets"
_MOUNTS = {"tmp": "/tmp", "secrets": _SECRETS}  # noqa: S108 # the container's own
# Who may call addresses of users; and what is nobody's on the internet, where they have no business.
_CALLING = {queue for route in ROUTES if route.task == "send_webhook_notification" for queue in route.queues}
_PRIVATE = {
    "0.0.0.0/0": ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"],
    "::/0": ["fc00::/7", "fe80::/10"],
}
_SCRAPERS = {"namespaceSelector": {"matchLabels": {"unstract.workers/scrapes": "true"}}}
_SPREAD = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
_USER = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 10001)
_POD_SECURITY = {"runAsNonRoot": True, **_USER, "seccompProfile": {"type": "RuntimeDefault"}}
_SECURITY = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def labels(process: Process) -> Object:
    """What its pods are found by."""
    return {"app.kubernetes.io/name": process.name, **PART_OF}


def made(kind: str, api: str, process: Process, **body: object) -> Object:
    """An object of that process."""
    return {"apiVersion": api, "kind": kind, "metadata": {"name": process.name, "labels": labels(process)}, **body}


def allowed(process: Process, source: Object, **more: object) -> Object:
    """A policy that lets somebody come to its health port."""
    ingress = [{"from": [source], "ports": [{"port": process.port, "protocol": "TCP"}]}]
    spec = {"podSelector": {"matchLabels": labels(process)}, "ingress": ingress, **more}
    return made("NetworkPolicy", "networking.k8s.io/v1", process, spec=spec)


def _objects(process: Process) -> list[Object]:
    found = [
        made("ServiceAccount", "v1", process, automountServiceAccountToken=False),
        _deployment(process),
        allowed(process, _SCRAPERS, egress=_egress(process), policyTypes=["Ingress", "Egress"]),
    ]
    if process.worker:
        # Always one may go, and one that is not ready anyway: no node waits for ever to be drained.
        budget = {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", **_selector(process)}
        found.append(made("PodDisruptionBudget", "policy/v1", process, spec=budget))
    if process is MONITOR:
        ports = [{"name": "health", "port": process.port, "targetPort": "health"}]
        found.append(made("Service", "v1", process, spec={"selector": labels(process), "ports": ports}))
    return found


def _selector(process: Process) -> Object:
    return {"selector": {"matchLabels": labels(process)}}


def _egress(process: Process) -> list[Object]:
    calls = process.worker is not None and not _CALLING.isdisjoint(process.worker.queues)
    blocks = [{"ipBlock": {"cidr": cidr, "except": private}} for cidr, private in _PRIVATE.items()]
    return [
        {"ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]},
        {"ports": [{"port": port, "protocol": "TCP"} for port in process.reaches]},
        *([{"to": blocks}] if calls else []),
    ]


def _deployment(process: Process) -> Object:
    # Of two beats one would wait for the other's lock, and the update would be over before it sends.
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(process.port)}
    annotations = {} if process is BEAT else {"annotations": scraped}
    spec = {
        "replicas": process.worker.scaling.least if process.worker else 1,
        "revisionHistoryLimit": 5,
        "strategy": {"type": "Recreate"} if process is BEAT else rolling,
        **_selector(process),
        "template": {"metadata": {"labels": labels(process), **annotations}, "spec": _pod(process)},
    }
    return made("Deployment", "apps/v1", process, spec=spec)


def _pod(process: Process) -> Object:
    room = process.worker.room if process.worker else Room()
    label = {"matchExpressions": [{"key": f"unstract.workers/plenty-of-{room.node}", "operator": "Exists"}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": label}]}
    spread = {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": labels(process)}}
    tmp = {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}
    sources = [_secret(process.keys), *([_secret([process.optional], optional=True)] if process.optional else [])]
    return {
        "serviceAccountName": process.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # or a Service sets variables that begin as those of a profile
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": _POD_SECURITY,
        **({"affinity": {"nodeAffinity": preferred}} if room.node else {}),
        "topologySpreadConstraints": [{"topologyKey": key, **spread} for key in _SPREAD],
        "containers": [_container(process, room)],
        "volumes": [tmp, {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": sources}}],
    }


def _secret(keys: Sequence[str], **more: bool) -> Object:
    return {"secret": {"name": "workers-secrets", "items": [{"key": key, "path": key} for key in keys], **more}}


def _container(process: Process, room: Room) -> Object:
    # Beat has no metrics: its port has another name, by which nobody scrapes it.
    page, memory = "probes" if process is BEAT else "health", f"{room.memory}Mi"

    def probe(path: str, period: int, failures: int) -> Object:
        # /readyz asks others, for four seconds at the most.
        times = {"periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}
        return {"httpGet": {"path": path, "port": page}, **times}

    return {
        "name": process.name,
        "image": f"unstract-workers/{process.name}",
        "args": list(process.command),
        "envFrom": [{"configMapRef": {"name": "workers-settings"}}],
        "ports": [{"name": page, "containerPort": process.port}],
        "startupProbe": probe("/livez", period=2, failures=60),
        "livenessProbe": probe("/livez", period=10, failures=3),
        "readinessProbe": probe("/readyz", period=10, failures=2),
        "resources": {"requests": {"cpu": f"{room.cpu}m", "memory": memory}, "limits": {"memory": memory}},
        "securityContext": _SECURITY,
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in _MOUNTS.items()],
    }


def kustomized(files: dict[str, list[Object]], kind: str, version: str, **more: object) -> dict[str, list[Object]]:
    """The same files, and the one by which kustomize finds them."""
    head = {"apiVersion": f"kustomize.config.k8s.io/{version}", "kind": kind}
    return files | {"kustomization": [{**head, "resources": [f"{name}.yaml" for name in sorted(files)], **more}]}


def base() -> dict[str, list[Object]]:
    """Each file of the base, and the objects in it."""
    files = {process.name: _objects(process) for process in PROCESSES}
    enforced = {"name": "unstract-workers", "labels": PART_OF | {"pod-security.kubernetes.io/enforce": "restricted"}}
    files["namespace"] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": enforced}]
    literals = [f"DRAIN_SECONDS={DRAIN_SECONDS}", *(f"{key.upper()}_FILE={_SECRETS}/{key}" for key in KEYS)]
    settings = {"name": "workers-settings", "literals": literals}
    return kustomized(files, "Kustomization", "v1beta1", configMapGenerator=[settings])
