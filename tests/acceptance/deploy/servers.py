"""The public images that compose names, for an engine that has not got them.

Usage: uv run python tests/acceptance/deploy/servers.py
"""

import os
import shutil
import subprocess
from pathlib import Path

_DOCKER = shutil.which("docker") or "docker"
_FOLDER = Path(__file__).parent / "servers"
BASE = os.environ.get("BASE_IMAGE", "python-base:local")
# By what `docker-compose.workers.yml` calls them. Grafana has no stand-in: there is no package of it to make one from.
IMAGES = {
    "rabbitmq:4-management": "rabbitmq",
    "redis:8": "redis",
    "postgres:17": "postgres",
    "prom/prometheus:v3.5.0": "prometheus",
}


def provide() -> None:
    """Have the engine get each of them that it has not got yet; what it does is shown."""
    for image, name in IMAGES.items():
        if not _is_there(image):
            # A base that is called local was made where nothing can be pulled.
            _docker(*(_build(image, name) if BASE.endswith(":local") else ["pull", image]))


def _is_there(image: str) -> bool:
    return subprocess.run([_DOCKER, "image", "inspect", image], capture_output=True, check=False).returncode == 0


def _build(image: str, name: str) -> list[str]:
    file = str(_FOLDER / f"{name}.Dockerfile")
    argument = f"BASE_IMAGE={BASE}"
    return ["build", "--network", "host", "--build-arg", argument, "--file", file, "--tag", image, str(_FOLDER)]


def _docker(*argv: str) -> None:
    subprocess.run([_DOCKER, *argv], check=True)


if __name__ == "__main__":
    provide()
