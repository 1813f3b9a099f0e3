"""Where scripts/deploy.sh is tried on Kubernetes: a copy of what it reads, and the cluster that its kubectl finds."""

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import without
from tests.deployment.kubernetes_api import Cluster, api_server
from tests.deployment.manifests import ENVIRONMENTS, ROOT

KEYS = ("internal_service_api_key", "celery_broker_url", "cache_redis_password")
FILLED = {
    "<http address of the backend that ends in /internal>": "http://backend:8000/internal",
    "<host of the state store>": "redis",
}


@dataclass
class Site:
    """A copy of what deploy.sh reads and writes, and the cluster that its kubectl finds."""

    tree: Path
    cluster: Cluster
    environment: str = "development"

    def run(self, *argv: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """deploy.sh, whatever comes of it."""
        return subprocess.run(
            self.command(*argv),
            env=self.variables(**variables),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=100,
        )

    def command(self, *argv: str) -> list[str]:
        """One for this environment."""
        script = str(self.tree / "scripts" / "deploy.sh")
        return ["bash", script, "--target", "kubernetes", "--environment", self.environment, "--action", *argv]

    def variables(self, **more: str) -> dict[str, str]:
        """A kubectl that knows this cluster alone."""
        own = {"KUBECONFIG": str(self.tree / "kubeconfig"), "KUBECACHEDIR": str(self.tree / "cache")}
        return {key: value for key, value in os.environ.items() if key != "TAKEOVER"} | own | more

    def done(self, *argv: str, **variables: str) -> str:
        """What deploy.sh says when all goes well."""
        ran = self.run(*argv, **variables)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr

    def failed(self, *argv: str, **variables: str) -> str:
        """What it says when it does not."""
        ran = self.run(*argv, **variables)
        assert ran.returncode == 1, (ran.returncode, ran.stderr)
        return ran.stderr

    @property
    def folder(self) -> Path:
        """Its records."""
        return self.tree / ".deployments" / f"{self.environment}-kubernetes"

    def records(self) -> dict[str, str]:
        """What became of each deployment."""
        return {path.parent.name: path.read_text().strip() for path in sorted(self.folder.glob("*/state"))}

    def replicas(self) -> dict[str, int]:
        """How many pods each Deployment is to have."""
        return {name: each["spec"]["replicas"] for name, each in self.cluster.named("deployments").items()}

    def deployments(self) -> dict[str, Any]:
        """What each of them is meant to be."""
        return {name: copy.deepcopy(each["spec"]) for name, each in self.cluster.named("deployments").items()}


@contextmanager
def made(tree: Path) -> Iterator[Site]:
    """Nothing deployed; the settings filled in, and the secret made. People have blanks in their paths."""
    tree = tree / "a check out"
    if shutil.which("kubectl") is None:
        without("kubectl is not installed; it is in Debian's package kubernetes-client")
    shutil.copytree(ROOT / "scripts", tree / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docker" / "kubernetes", tree / "docker" / "kubernetes")
    for settings in tree.glob("docker/kubernetes/overlays/*/settings.env"):
        for old, new in FILLED.items():
            settings.write_text(settings.read_text().replace(old, new))
    with api_server() as (cluster, url):
        for environment in ENVIRONMENTS:
            secret = {"apiVersion": "v1", "kind": "Secret", "data": dict.fromkeys(KEYS, "eA==")}
            cluster.put(("secrets", f"unstract-workers-{environment}", "workers-secrets"), secret)
        point(tree, url)
        yield Site(tree, cluster)


def point(tree: Path, url: str, context: str = "stand-in") -> None:
    """Let kubectl find that server."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "current-context": context,
    }
    (tree / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **config}))
