"""These workers as one of the systems: one process of the profile `all`, with room for sixteen files at once.

A job is an execution of an API deployment. Its files go out in one batch, as the contract has it by default, or each in
one of its own, so that there are as many messages as the others have. Its requests are the contract's: three for each
file, and eight for the execution where the others have one. The backend is the swift one, which counts as the others'
server does, and answers from a loop of its own. Of its slots, 16 are for files and the rest for starts and ends, which
the others' 16 take too.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import redis
from kombu.connection import Connection
from kombu.entity import Queue

from config.queue_routing import QUEUES
from sandbox.stack import Part, Stack, wait_for
from tests.benchmarks.peers.systems import MANY, Running, Seen, Summary, warm
from tests.benchmarks.world import Swift, kill, start_swift

_PART = "all"
_LOOK_SECONDS = 0.02
# A third of the slots for each of the two queues of files.
_SLOTS = {"ALL_CONCURRENCY": "48"}


def _limits(seconds: int, *, rabbitmq: bool) -> dict[str, str]:
    """Settings by which a dead worker's work is another's after so many seconds."""
    found = {"LEASE_SECONDS": str(seconds)}
    if not rabbitmq:
        times = {"BATCH_SLICE_SECONDS": 2, "INTERNAL_API_TIMEOUT": 1.9, "DRAIN_SECONDS": 1, "TASK_DEADLINE_SECONDS": 6}
        found |= {name: str(value) for name, value in times.items()}
        found |= {"BROKER_VISIBILITY_TIMEOUT": str(seconds)}
    return found


class _Ours:
    """A `Running` that is ours."""

    def __init__(self, stack: Stack, swift: Swift, batches: int) -> None:
        self._stack, self._swift, self._batches = stack, swift, batches
        self._jobs: dict[str, str] = {}
        self._before: Counter[str] = Counter()

    @property
    def part(self) -> Part:
        return self._stack.parts[_PART]

    def reset(self, delay: float) -> None:
        self._swift.set(tool_seconds=delay, batches=self._batches)
        self._swift.forget()
        self._jobs = {}
        self._before = Counter(self._swift.requests())

    def send(self, jobs: Sequence[str], files: int) -> float:
        began = time.monotonic()
        for job in jobs:
            self._jobs[job] = str(uuid.uuid4())
            self._swift.send(files, self._jobs[job])
        return began

    def _seen(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """By job, those of the kind that the backend has heard of."""
        found = self._swift.executions()
        mine = {job: named for job, named in self._jobs.items() if job.partition("-")[0] == kind}
        return {job: found[named] for job, named in mine.items() if named in found}

    def wait(self, kind: str, jobs: int, seconds: float, begun: int = MANY) -> Summary:
        until = time.monotonic() + seconds
        while True:
            seen = self._seen(kind).values()
            done = [one["at"] for one in seen if one["done"]]
            asked = sum(file.get("/execute", 0) for one in seen for file in one["files"].values())
            if len(done) >= jobs or asked >= begun or time.monotonic() > until:
                requests = sum(sum(file.values()) for one in seen for file in one["files"].values()) + len(done)
                return Summary(len(done), asked, requests, max(done, default=None))
            time.sleep(_LOOK_SECONDS)

    def asked(self) -> int:
        return sum((Counter(self._swift.requests()) - self._before).values())

    def seen(self, kind: str) -> Seen:
        found = self._seen(kind)
        files = {
            job: {name.removeprefix("note-").removesuffix(".txt"): counts for name, counts in one["files"].items()}
            for job, one in found.items()
        }
        done = {job: one["done"] for job, one in found.items()}
        return Seen(done, {job: one["ended"] for job, one in found.items() if one["done"]}, files)

    def kill_and_restart(self) -> float:
        killed = time.monotonic()
        kill(self._stack, _PART)
        self._stack.restart(_PART)
        return killed


class Ours:
    """These workers.

    Args:
        batches: into how many the files of a job go at the most.
        rabbitmq: whether that is their broker.
    """

    def __init__(self, batches: int, *, rabbitmq: bool) -> None:
        self._batches, self._rabbitmq = batches, rabbitmq
        broker = "RabbitMQ" if rabbitmq else "Redis"
        self.name = f"these workers, a batch per {'job' if batches == 1 else 'file'}, {broker}"
        self.notices = (
            "at once, as its connection ends, and once its lease is over: 15 s by default; 10 s in this test"
            if rabbitmq
            else "after 600 s by default (BROKER_VISIBILITY_TIMEOUT); 10 s in this test"
        )

    def unavailable(self) -> str | None:
        return None

    @contextmanager
    def open(self, stack: Stack, _server: str, limit: int) -> Iterator[Running]:
        if "backend" not in stack.parts:
            start_swift(stack)
        self._empty(stack)
        settings = _limits(limit, rabbitmq=self._rabbitmq) if limit else {}
        with closing(Swift(stack)) as swift:
            running = _Ours(stack, swift, self._batches)
            stack.start_workers(_PART, **_SLOTS, **settings)
            wait_for(lambda: stack.ready(_PART), 60, "the worker to be ready")
            try:
                warm(running)
                yield running
            finally:
                kill(stack, _PART)
                del stack.parts[_PART]

    def _empty(self, stack: Stack) -> None:
        """What an earlier round left."""
        with redis.Redis.from_url(stack.redis_url) as store:
            store.flushdb()
        with Connection(stack.broker_url) as connection, connection.channel() as channel:
            for name in QUEUES:
                queue = Queue(name, channel=channel)
                queue.declare()
                queue.purge()
