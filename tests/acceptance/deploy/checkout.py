"""A checkout of its own, and what its `deploy.sh` deploys: everything on one machine, apart from all else there."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

from sandbox.stack import StackError, free_ports
from tests.acceptance.deploy.engine import Project
from tests.acceptance.deploy.servers import BASE

_ROOT = Path(__file__).resolve().parents[3]
WORKERS = ("api-deployment", "general", "file-processing", "callback")
OURS = (*WORKERS, "beat", "monitor")
SERVERS = ("rabbitmq", "redis", "postgres", "backend")
# A roll-out waits two minutes for a service and ends with the first that is not ready; then the last good one returns.
_LONGEST_SECONDS = 300


class Checkout:
    """A copy of this checkout as it is; a platform for `sandbox.driver`, once it is deployed.

    Attributes:
        folder: where it is.
        name: of its compose project, and what the names of its images begin with.
        project: its containers.
        backend_url: where users post documents.
        key: the key to its internal API.
        redis_url: nobody answers there: the state store is the containers' own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a check out"  # people have blanks in their paths
        self.name = f"deploy-{uuid4().hex[:8]}"
        self.project = Project(self.name)
        (port,) = free_ports(1)
        self.backend_url = f"http://127.0.0.1:{port}"
        self.key, self.redis_url = "", "redis://127.0.0.1:9/0"
        self._environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.name,
            "IMAGE_PREFIX": self.name,
            "BACKEND_PORT": str(port),
            "BASE_IMAGE": BASE,
            "BUILD_NETWORK": "host",
        }
        self._copy()

    def _copy(self) -> None:
        """With what is not committed yet, and without what git ignores."""
        argv = [shutil.which("git") or "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(argv, cwd=_ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (_ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(_ROOT / name, self.folder / name)

    def check(self) -> None:
        """Raise StackError if one of the servers has ended. Workers may come and go."""
        missing = set(SERVERS) - self.project.services()
        if missing:
            raise StackError(f"{', '.join(missing)} does not run\n{self.project.said()}")

    def start(
        self, action: str, *options: str, environment: str = "development", stdin: int = subprocess.DEVNULL
    ) -> "subprocess.Popen[str]":
        """Start the script."""
        script = str(self.folder / "scripts" / "deploy.sh")
        return subprocess.Popen(
            [script, "--environment", environment, "--action", action, *options],
            cwd=self.folder,
            env=self._environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(
        self,
        action: str,
        *options: str,
        code: int = 0,
        environment: str = "development",
        stdin: int = subprocess.DEVNULL,
    ) -> str:
        """Run the script, which is to end with that code; what it says."""
        with self.start(action, *options, environment=environment, stdin=stdin) as script:
            return finished(script, code)

    def files(self) -> dict[str, str]:
        """A digest of each file in it, the records of deployments among them."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def finished(script: "subprocess.Popen[str]", code: int = 0) -> str:
    """What a script says that is to end with that code."""
    try:
        said, _ = script.communicate(timeout=_LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        script.kill()
        raise
    assert script.returncode == code, f"{script.args!r} ended with {script.returncode}, not {code}:\n{said}"
    return said
