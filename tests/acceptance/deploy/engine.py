"""What is asked of the Docker Engine: the containers of a compose project, how they are, and how they end."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_DOCKER = shutil.which("docker") or "docker"
# After this many seconds an engine that is asked something has no answer.
_PATIENCE = 60
_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_ONE_OFF = "com.docker.compose.oneoff"
_SHOWN_LINES = "15"


def docker(*argv: str, given: str | None = None, check: bool = True) -> str:
    """What a command of the engine prints, on both streams."""
    ran = subprocess.run(
        [_DOCKER, *argv],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=_PATIENCE,
    )
    assert ran.returncode == 0 or not check, f"docker {' '.join(argv)}: {ran.stdout}"
    return ran.stdout


def no_engine() -> str | None:
    """Why there is no engine, or None where there is one."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    ran = subprocess.run([_DOCKER, "info"], capture_output=True, text=True, check=False, timeout=_PATIENCE)
    return None if ran.returncode == 0 else f"the Docker Engine does not answer: {ran.stderr.strip()}"


class Project:
    """All that the engine has of one compose project."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _mine(self, *service: str) -> list[str]:
        labels = [f"{_PROJECT}={self.name}", *(f"{_SERVICE}={one}" for one in service)]
        return [part for label in labels for part in ("--filter", f"label={label}")]

    def containers(self, *service: str) -> list[dict[str, Any]]:
        """What the engine knows of each that exists, the oldest first."""
        ids = docker("ps", "--all", "--quiet", "--no-trunc", *self._mine(*service)).split()
        found: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
        return sorted(found, key=lambda one: str(one["Created"]))

    def services(self) -> set[str]:
        """Those of which a container runs."""
        return set(docker("ps", "--format", f'{{{{.Label "{_SERVICE}"}}}}', *self._mine()).split())

    def running(self, service: str) -> list[str]:
        """The ids of its containers that run."""
        return [one["Id"] for one in self.containers(service) if one["State"]["Running"]]

    def tags(self, *services: str) -> dict[str, set[str]]:
        """The tags of the images that run. `deploy.sh` adds environment and id to each, which are left out."""
        found: dict[str, set[str]] = {}
        for service in services:
            images = [one["Config"]["Image"] for one in self.containers(service) if one["State"]["Running"]]
            found[service] = {image.rpartition(":")[2].rsplit("-", 2)[0] for image in images}
        return found

    def consumers(self) -> dict[str, int]:
        """How many consumers each queue of its RabbitMQ has."""
        (broker,) = self.running("rabbitmq")
        said = docker(
            "exec", broker, "rabbitmqctl", "--quiet", "--no-table-headers", "list_queues", "name", "consumers"
        )
        return {name: int(count) for name, count in (line.split("\t") for line in said.splitlines())}

    def left(self) -> list[str]:
        """Containers, networks and volumes, by their names."""
        found = docker("ps", "--all", "--format", "{{.Names}}", *self._mine()).split()
        for kind in ("network", "volume"):
            found += docker(kind, "ls", "--format", "{{.Name}}", *self._mine()).split()
        return sorted(found)

    def states(self) -> list[tuple[str, ...]]:
        """Every container with its image, its state and when it was started, and what else is left."""
        rows = [
            (one["Id"], one["Image"], one["State"]["Status"], one["State"]["StartedAt"]) for one in self.containers()
        ]
        return [*sorted(rows), tuple(self.left())]

    @contextmanager
    def ends(self) -> Iterator[list[tuple[str, int]]]:
        """Service and exit code of every container that ends in this block, without those of `compose run`."""
        found: list[tuple[str, int]] = []
        argv = [_DOCKER, "events", "--since", f"{time.time():.3f}", "--filter", "event=die", *self._mine()]
        # While they happen: the engine keeps the last 256 events, and health checks make more than that in a minute.
        with tempfile.TemporaryFile("w+") as heard:
            listening = subprocess.Popen([*argv, "--format", "{{json .Actor.Attributes}}"], stdout=heard)
            try:
                yield found
                time.sleep(1)
            finally:
                listening.terminate()
                listening.wait(_PATIENCE)
            heard.seek(0)
            dead = [json.loads(line) for line in heard]
        found += [(one[_SERVICE], int(one["exitCode"])) for one in dead if one[_ONE_OFF] != "True"]

    def said(self) -> str:
        """How each container is, and the end of its log."""
        lines = []
        for one in self.containers():
            state = one["State"]
            health = state.get("Health", {}).get("Status", "")
            lines.append(f"--- {one['Name']} {one['Config']['Image']} {state['Status']} {state['ExitCode']} {health}")
            lines.append(docker("logs", "--tail", _SHOWN_LINES, one["Id"], check=False))
        return "\n".join(lines)

    def remove(self) -> None:
        """Whatever is left."""
        for listed, removed in (
            (("ps", "--all", "--quiet"), ("rm", "--force", "--volumes")),
            (("network", "ls", "--quiet"), ("network", "rm")),
            (("volume", "ls", "--quiet"), ("volume", "rm")),
        ):
            ids = docker(*listed, *self._mine()).split()
            if ids:
                docker(*removed, *ids)
