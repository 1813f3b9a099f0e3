"""What docker/kubernetes comes to: the objects of each overlay as kubectl renders them, and what they are held to."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from config.workers import BEAT_HEALTH_PORT, MONITOR_HEALTH_PORT, WORKERS
from tests.conftest import without

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ROOT / "docker" / "kubernetes" / "overlays"
ENVIRONMENTS = tuple(sorted(folder.name for folder in OVERLAYS.iterdir()))
CUSTOM = json.loads((ROOT / "tests" / "samples" / "custom_resources.json").read_text())
NAME = "app.kubernetes.io/name"

DASHED = {name.replace("_", "-"): worker for name, worker in WORKERS.items()}
PORTS = {name: worker.health_port for name, worker in DASHED.items()} | {
    "beat": BEAT_HEALTH_PORT,
    "monitor": MONITOR_HEALTH_PORT,
}

Object = dict[str, Any]


def kubectl(*argv: str) -> str:
    """What kubectl says; without it a test skips, or fails."""
    program = shutil.which("kubectl")
    if program is None:
        without("kubectl is not installed; it is in Debian's package kubernetes-client")
    ran = subprocess.run([program, *argv], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@dataclass(frozen=True)
class Rendered:
    """All objects of one overlay."""

    environment: str
    objects: list[Object]

    def of(self, kind: str) -> dict[str, Object]:
        """Those of a kind, by name."""
        return {each["metadata"]["name"]: each for each in self.objects if each["kind"] == kind}

    def pods(self) -> dict[str, Object]:
        """The pod that each Deployment makes, by its name."""
        return {name: each["spec"]["template"] for name, each in self.of("Deployment").items()}

    def settings(self) -> dict[str, str]:
        """The environment that all have."""
        (found,) = self.of("ConfigMap").values()
        return dict(found["data"])


@cache
def overlay(environment: str) -> Rendered:
    """That overlay, rendered once."""
    return Rendered(environment, rendered(OVERLAYS / environment))


def rendered(folder: Path) -> list[Object]:
    """What kubectl makes of a folder."""
    return list(yaml.safe_load_all(kubectl("kustomize", str(folder))))


def container(pod: Object) -> Object:
    """The one container of a pod."""
    (found,) = pod["spec"]["containers"]
    return dict(found)


def check(each: Object, version: str) -> None:
    """Raise ValidationError unless an API server of that version takes it, every field of it known."""
    if each["kind"] in CUSTOM["$defs"]:
        jsonschema.validate(each, {"$ref": f"#/$defs/{each['kind']}", "$defs": CUSTOM["$defs"]})
    else:
        kubernetes_validate.validate(each, version, strict=True)


def unrestricted(pod: Object) -> Iterator[str]:
    """What the restricted profile forbids: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
    spec, whole = pod["spec"], pod["spec"].get("securityContext", {})
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    yield from kinds - allowed
    yield from (name for name in ("sysctls", "windowsOptions", "seLinuxOptions", "appArmorProfile") if whole.get(name))
    for each in (*spec["containers"], *spec.get("initContainers", ()), *spec.get("ephemeralContainers", ())):
        yield from _unrestricted(each, whole | each.get("securityContext", {}))


def _unrestricted(each: Object, security: Mapping[str, Any]) -> Iterator[str]:
    capabilities = security.get("capabilities", {})
    held = {
        "hostPort": not any("hostPort" in port for port in each.get("ports", ())),
        "privileged": not security.get("privileged", False),
        "procMount": security.get("procMount", "Default") == "Default",
        "windowsOptions": "windowsOptions" not in security,
        "seLinuxOptions": "seLinuxOptions" not in security,
        "appArmorProfile": "appArmorProfile" not in security,
        "seccompProfile": security.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
        "allowPrivilegeEscalation": security.get("allowPrivilegeEscalation") is False,
        "runAsNonRoot": security.get("runAsNonRoot") is True,
        "runAsUser": security.get("runAsUser") != 0,
        "capabilities.drop": "ALL" in capabilities.get("drop", ()),
        "capabilities.add": set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
    }
    yield from (name for name, right in held.items() if not right)
