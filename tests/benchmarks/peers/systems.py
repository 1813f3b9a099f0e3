"""The systems that do the same work, behind one interface, and how each is started, told and asked."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import httpx
import redis

from sandbox.stack import Part, Stack, StackError
from tests.benchmarks.peers import environments
from tests.benchmarks.world import kill

MANY = 1_000_000_000
_STARTS = 60.0
_number = count()


@dataclass(frozen=True, slots=True)
class Summary:
    """What the server has seen of one kind of jobs.

    Attributes:
        done: jobs whose end has come.
        begun: executions of files that have begun.
        requests: requests of workers for jobs of that kind; what cannot be said whose it is, is left out.
        last: when the last job was done for the first time (`time.monotonic()`), if one was.
    """

    done: int
    begun: int
    requests: int
    last: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """Every job of one kind that the server has heard of.

    Attributes:
        done: how often each was done.
        ended: how many of its files had ended when it was done first.
        files: how often each path was asked for, by job and number of the file.
    """

    done: Mapping[str, int]
    ended: Mapping[str, int]
    files: Mapping[str, Mapping[str, Mapping[str, int]]]


class Running(Protocol):
    """A worker of one system that takes jobs. What comes before the dash in a job's id is its kind."""

    @property
    def part(self) -> Part:
        """The worker's process, which leads its group."""

    def reset(self, delay: float) -> None:
        """Have the server forget what it has seen; from now on executing a file takes `delay` seconds."""

    def send(self, jobs: Sequence[str], files: int) -> float:
        """Send a message for each job; when the first was begun (`time.monotonic()`)."""

    def wait(self, kind: str, jobs: int, seconds: float, begun: int = MANY) -> Summary:
        """Wait until so many jobs are done, or executions begun, or for so many seconds."""

    def asked(self) -> int:
        """Every request of workers since the reset."""

    def seen(self, kind: str) -> Seen: ...

    def kill_and_restart(self) -> float:
        """Kill the worker's whole group and start it again; when it was killed (`time.monotonic()`)."""


class System(Protocol):
    """One row of the table."""

    @property
    def name(self) -> str: ...

    @property
    def notices(self) -> str:
        """When a dead worker's work is another's, by default and with the limit of the test; for a sentence's end."""

    def unavailable(self) -> str | None:
        """Why it cannot be measured here, or None. Makes its environment, which may take long the first time."""

    def open(self, stack: Stack, server: str, limit: int) -> AbstractContextManager[Running]:
        """A worker with nothing to do. The server's address; seconds after which a dead worker's work is another's."""


class _Peer:
    """A `Running` whose worker and sender are processes of one environment."""

    def __init__(self, stack: Stack, part: Part, sender: "subprocess.Popen[str]", server: str) -> None:
        self.part = part
        self._stack = stack
        self._sender = sender
        self._http = httpx.Client(base_url=server, timeout=120)

    def reset(self, delay: float) -> None:
        self._http.post("/reset", json={"delay": delay}).raise_for_status()

    def send(self, jobs: Sequence[str], files: int) -> float:
        if self._sender.stdin is None or self._sender.stdout is None:
            raise StackError("the sender has no pipes")
        try:
            self._sender.stdin.write(json.dumps({"jobs": list(jobs), "files": files}) + "\n")
            self._sender.stdin.flush()
            return float(json.loads(self._sender.stdout.readline())["began"])
        except (BrokenPipeError, ValueError) as error:
            raise StackError(f"the sender of {self.part.name} ended; the worker's log:\n{self.part.tail()}") from error

    def wait(self, kind: str, jobs: int, seconds: float, begun: int = MANY) -> Summary:
        wanted = {"kind": kind, "jobs": jobs, "begun": begun, "seconds": seconds}
        return Summary(**self._http.post("/wait", json=wanted).raise_for_status().json())

    def asked(self) -> int:
        return self.wait("job", 0, 0).requests

    def seen(self, kind: str) -> Seen:
        return Seen(**self._http.post("/seen", json={"kind": kind}).raise_for_status().json())

    def kill_and_restart(self) -> float:
        killed = time.monotonic()
        kill(self._stack, self.part.name)
        self.part = self._stack.restart(self.part.name)
        return killed

    def close(self) -> None:
        """Nothing is in hand any more, or nobody wants it: the next round begins with an empty store."""
        kill(self._stack, self.part.name)
        del self._stack.parts[self.part.name]
        self._http.close()
        self._sender.communicate()


@dataclass(frozen=True, slots=True)
class Peer:
    """A system of `*_peer.py`.

    Attributes:
        group: its environment in pyproject.toml.
        worker: the command that starts its worker, a program of that environment with its arguments.
        database: the number of its Redis database; broker and store are this one, unless RabbitMQ is the broker.
        notices: when a dead worker's work is another's, by default and in the test.
        rabbitmq: whether the stack's RabbitMQ is its broker.
    """

    name: str
    group: str
    worker: Sequence[str]
    database: int
    notices: str
    rabbitmq: bool = False

    def unavailable(self) -> str | None:
        return environments.make(self.group)

    @contextmanager
    def open(self, stack: Stack, server: str, limit: int) -> Iterator[Running]:
        store = f"{stack.redis_url.rpartition('/')[0]}/{self.database}"
        with redis.Redis.from_url(store) as empty:
            empty.flushdb()
        programs = environments.folder(self.group) / "bin"
        # A queue of RabbitMQ outlives its round.
        part_name = f"{self.group}-{next(_number)}"
        usual = stack.environment()
        environment = {name: usual[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in usual} | {
            "PYTHONUNBUFFERED": "1",
            "PEER_BROKER_URL": stack.broker_url if self.rabbitmq else store,
            "PEER_STORE_URL": store,
            "PEER_SERVER_URL": server,
            "PEER_QUEUE": part_name,
            "PEER_LIMIT_SECONDS": str(limit),
        }
        program, *arguments = self.worker
        part = stack.start(part_name, [str(programs / program), *arguments], environment, str(environments.HERE))
        running = _Peer(stack, part, _sender(programs, f"{self.group}_peer", environment), server)
        try:
            warm(running)
            yield running
        finally:
            running.close()


def _sender(programs: Path, module: str, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(programs / "python"), "send.py", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=environments.HERE,
    )


def warm(running: Running) -> None:
    """Have every process and thread of the worker do something: imports and connections are no part of the load."""
    running.reset(0.005)
    running.send(["warm-0"], 64)
    if not running.wait("warm", 1, _STARTS).done:
        raise StackError(f"{running.part.name} did not do its first job; its log:\n{running.part.tail()}")


def _celery(pool: str, size: int, database: int, *, rabbitmq: bool = False) -> Peer:
    name = f"Celery, {pool} {size}, {'RabbitMQ' if rabbitmq else 'Redis'}"
    command = ("celery", "-A", "celery_peer", "worker", "--pool", pool, "--concurrency", str(size))
    notices = "at once, as its connection ends" if rabbitmq else "after 3,600 s by default; 10 s in this test"
    return Peer(name, "celery", command, database, notices, rabbitmq)


def peers(*, rabbitmq: bool) -> list[System]:
    """Every system that is not ours; Celery on RabbitMQ too, if there is one."""
    dramatiq = ("dramatiq", "dramatiq_peer", "--processes", "2", "--threads", "8")
    taskiq = ("taskiq", "worker", "taskiq_peer:broker", "--workers", "2", "--max-async-tasks", "8")
    arq = ("arq", "arq_peer.WorkerSettings")
    return [
        _celery("prefork", 4, 1),
        _celery("threads", 16, 2),
        *([_celery("prefork", 4, 3, rabbitmq=True), _celery("threads", 16, 4, rabbitmq=True)] if rabbitmq else []),
        Peer("dramatiq, 2 x 8 threads", "dramatiq", dramatiq, 5, "after 60 s by default; 10 s in this test"),
        Peer("taskiq, 2 x 8 tasks", "taskiq", taskiq, 6, "after 600 s by default; 10 s in this test"),
        Peer("arq, 16 jobs", "arq", arq, 7, "after 310 s by default; 20 s in this test"),
    ]
