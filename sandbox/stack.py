"""The whole platform on one machine, as processes: broker and state store, reference backend, workers."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from sandbox import servers
from sandbox.keeper import kill_group
from sandbox.part import Part
from sandbox.probes import StackError, alive, free_ports, listens, unusable_broker, wait_for

# The probes are the stack's too: who starts processes also waits for them.
__all__ = [
    "FOUR",
    "Part",
    "Stack",
    "StackError",
    "alive",
    "free_ports",
    "listens",
    "unusable_broker",
    "wait_for",
]

_ROOT = Path(__file__).resolve().parent.parent
_READY = ('"worker_ready"', "beat: Starting...", '"monitor_ready"')
_LOOK_SECONDS = 0.05
_STOP_SECONDS = 30.0
FOUR = ("api_deployment", "general", "file_processing", "callback")
# What a whole container gets at once. SIGTERM is for its first process alone, which knows what to do with its children.
_FOR_THE_GROUP = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT})


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
        management_url: RabbitMQ's management API, of a node of the stack's own that has one.
        health_ports: where workers, beat and the monitor answer for their health, by name.
    """

    def __init__(self, broker_url: str | None = None, database_url: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="workers-stack-"))
        self.parts: dict[str, Part] = {}
        self.key = secrets.token_urlsafe(32)
        self.redis_password = secrets.token_urlsafe(16)
        self._picked: set[int] = set()
        self.redis_port, backend_port = self._pick(2)
        self._ports = {"redis": self.redis_port}
        self.health_ports: dict[str, int] = {}
        self.management_url = ""
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

    def _pick(self, count: int) -> list[int]:
        """Free ports, and none of those that parts of this stack have been given and may not listen on yet."""
        found: list[int] = []
        while len(found) < count:
            found += [port for port in free_ports(count - len(found)) if port not in self._picked | set(found)]
        self._picked.update(found)
        return found

    def environment(self, **extra: str) -> dict[str, str]:
        """What every part finds in its environment."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "ENVIRONMENT": "development",
            "LOG_FORMAT": "json",
            "HEALTH_HOST": "127.0.0.1",
            "CELERY_HEALTH_PORT": "0",
            "BEAT_HEALTH_PORT": "0",
            "MONITOR_HEALTH_PORT": "0",
            "INTERNAL_API_BASE_URL": f"{self.backend_url}/internal",
            "INTERNAL_SERVICE_API_KEY": self.key,
            "CELERY_BROKER_URL": self.broker_url,
            "CACHE_REDIS_HOST": "127.0.0.1",
            "CACHE_REDIS_PORT": str(self.redis_port),
            "CACHE_REDIS_PASSWORD": self.redis_password,
            "DATABASE_URL": self.database_url,
            "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "SANDBOX_DATA_DIR": str(self.folder / "data"),
            **extra,
        }

    def start(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None, cwd: str = str(_ROOT)
    ) -> Part:
        """Start one more process."""
        log = str(self.folder / f"{name}.log")
        order = {"argv": list(argv), "env": dict(environment or self.environment()), "cwd": cwd, "log": log}
        return self._start(name, order)

    def _start(self, name: str, order: Mapping[str, Any]) -> Part:
        log = Path(order["log"])
        written = log.stat().st_size if log.exists() else 0
        (self.folder / f"{name}.ready").unlink(missing_ok=True)
        if self._keeper.stdin is None or self._keeper.stdout is None:
            raise StackError("the keeper has no pipes")
        self._keeper.stdin.write(json.dumps(order) + "\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline()
        if not answer:
            raise StackError(f"{name} could not be started: {order['argv'][0]}")
        part = self.parts[name] = Part(name, json.loads(answer)["pid"], log, written, order)
        return part

    def start_redis(self, *, persistent: bool = False) -> None:
        """Start the embedded state store, and broker unless there is another: a real Valkey server."""
        self._start_valkey("redis", self.redis_port, persistent)

    def start_redis_broker(self, *, persistent: bool = True) -> None:
        """Start a Valkey server of its own as the broker, which can be restarted without the state store."""
        (port,) = self._pick(1)
        self.broker_url = f"redis://:{self.redis_password}@127.0.0.1:{port}/0"
        self._start_valkey("broker", port, persistent)

    def _start_valkey(self, name: str, port: int, persistent: bool) -> None:
        program = servers.valkey(self.folder / f"{name}.d", port, self.redis_password, persistent=persistent)
        self._ports[name] = port
        self.start(name, program.argv)

    def start_rabbitmq(self, *, management: bool = False) -> None:
        """Start a private RabbitMQ node as the broker; its durable queues and their messages outlive a kill.

        With its management API, if that is wanted, at `management_url`.

        Raises:
            StackError: RabbitMQ is not installed here.
        """
        script = servers.rabbitmq_program()
        if script is None:
            raise StackError("RabbitMQ is not installed here; install it, as in `apt-get install rabbitmq-server`")
        amqp, erlang, registry, api = self._pick(4)
        password = secrets.token_urlsafe(16)
        self.broker_url = f"amqp://stack:{password}@127.0.0.1:{amqp}//"
        self.management_url = f"http://stack:{password}@127.0.0.1:{api}" if management else ""
        self._ports |= {"broker": amqp, "epmd": registry}
        usual = self.environment()
        self.start("epmd", servers.epmd(registry).argv)
        wait_for(lambda: listens("127.0.0.1", registry), _STOP_SECONDS, "epmd")
        node = servers.rabbitmq(
            script, self.folder / "broker.d", (amqp, erlang, registry), password, api if management else None
        )
        self.start("broker", node.argv, usual | dict(node.environment))

    def start_backend(self, **settings: str) -> None:
        """Start the reference backend."""
        address = self.backend_url.removeprefix("http://")
        ready = str(self.folder / "backend.ready")
        argv = [sys.executable, "-P", "-m", "sandbox", "--bind", address, "--ready-file", ready]
        self.start("backend", argv, self.environment(**settings))

    def start_workers(self, *profiles: str, **settings: str) -> None:
        """Start one worker process per profile."""
        for profile, port in zip(profiles, self._pick(len(profiles)), strict=True):
            self.health_ports[profile] = port
            environment = self.environment(**{f"{profile.upper()}_HEALTH_PORT": str(port)} | settings)
            self.start(profile, [sys.executable, "-P", "-m", "shared", profile], environment)

    def start_beat(self, name: str = "beat", **settings: str) -> Part:
        """Start a scheduler. It is ready when it waits for its lock, which another may have."""
        environment = self.environment(**self._health_port(name, "BEAT") | settings)
        return self.start(name, [sys.executable, "-P", "-m", "shared.beat"], environment)

    def start_monitor(self, **settings: str) -> Part:
        """Start the monitor. It is ready when it answers."""
        environment = self.environment(**self._health_port("monitor", "MONITOR") | settings)
        return self.start("monitor", [sys.executable, "-P", "-m", "shared.monitor"], environment)

    def _health_port(self, name: str, of: str) -> dict[str, str]:
        (self.health_ports[name],) = self._pick(1)
        return {f"{of}_HEALTH_PORT": str(self.health_ports[name])}

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait until the backend listens and every worker consumes.

        Raises:
            StackError: a part ended instead, or took too long.
        """
        until = time.monotonic() + seconds
        for part in self.parts.values():
            while not self.ready(part.name):
                self.check()
                if time.monotonic() > until:
                    raise StackError(
                        f"{part.name} was not ready within {seconds:g} s; the end of its log:\n{part.tail()}"
                    )
                time.sleep(_LOOK_SECONDS)

    def ready(self, name: str) -> bool:
        """Whether that part runs, and has listened or consumed since it was last started."""
        part = self.parts[name]
        if not self.alive(name):
            return False
        if part.name in self._ports:
            return listens("127.0.0.1", self._ports[part.name])
        if part.name == "backend":
            return (self.folder / "backend.ready").exists()
        return any(line in part.said() for line in _READY)

    def check(self) -> None:
        """Raise StackError if a part has ended."""
        for part in self.parts.values():
            if not self.alive(part.name):
                raise StackError(f"{part.name} ended; the end of its log:\n{part.tail()}")

    def alive(self, name: str) -> bool:
        """Whether that part still runs."""
        return alive(self.parts[name].pid)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a part a signal; those that a process cannot refuse go to its children too. Not an error if it ended."""
        pid = self.parts[name].pid
        with suppress(ProcessLookupError):
            if number in _FOR_THE_GROUP:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)

    def stop_and_wait(self, name: str, seconds: float = _STOP_SECONDS) -> None:
        """Tell a part to end, and wait until it has.

        Raises:
            StackError: it has not within `seconds`.
        """
        self.kill(name, signal.SIGTERM)
        wait_for(lambda: not self.alive(name), seconds, f"{name} to end")

    def restart(self, name: str) -> Part:
        """Start a part again as it was started, on the same port with the same data; ends it first if it runs."""
        if self.alive(name):
            self.stop_and_wait(name)
        kill_group(self.parts[name].pid)  # children that outlived it
        return self._start(name, self.parts[name].order)
