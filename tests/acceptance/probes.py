"""Workers as processes, with the tasks of `probe.py`, on a broker and a state store of the test's own."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from sandbox.stack import Part, Stack, wait_for

QUEUES = ("probe", "probe_other", "probe_low", "probe_low_too")
_PROBE = str(Path(__file__).with_name("probe.py"))


@dataclass(frozen=True, slots=True)
class Event:
    """What a task said."""

    what: str
    task_id: str
    pid: int
    at: float
    more: str


@dataclass
class Probes:
    """A state store, a broker, and workers that are started one by one."""

    stack: Stack
    settings: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, *options: str, broker_url: str | None = None, **settings: str) -> Part:
        """Start a worker and wait until it consumes."""
        part = self.launch(name, *options, broker_url=broker_url, **settings)
        wait_for(lambda: '"worker_ready"' in part.log.read_text() or self._ended(part), 40, f"{name} to be ready")
        assert '"worker_ready"' in part.log.read_text(), part.tail(40)
        return part

    def _ended(self, part: Part) -> bool:
        return not self.stack.alive(part.name)

    def launch(self, name: str, *options: str, broker_url: str | None = None, **settings: str) -> Part:
        """Start a worker."""
        environment = self.stack.environment(**self.settings | settings)
        environment["CELERY_BROKER_URL"] = broker_url or self.stack.broker_url
        argv = [sys.executable, "-P", _PROBE, f"--hostname={name}@%h", *options]
        return self.stack.start(name, argv, environment)

    def events(self, what: str | None = None, task_id: str | None = None) -> list[Event]:
        """What tasks said, in order."""
        with redis.Redis.from_url(self.stack.redis_url, decode_responses=True) as client:
            lines: list[str] = client.lrange("probe:events", 0, -1)
        words = [line.split(" ", 4) for line in lines]
        found = [Event(one[0], one[1], int(one[2]), float(one[3]), "".join(one[4:])) for one in words]
        return [one for one in found if what in {None, one.what} and task_id in {None, one.task_id}]

    def await_events(self, what: str, count: int, seconds: float, task_id: str | None = None) -> list[Event]:
        """Wait for so many of them."""
        wait_for(lambda: len(self.events(what, task_id)) >= count, seconds, f"{count} times {what}")
        return self.events(what, task_id)

    def send(self, task: str, *args: Any, queue: str = "probe") -> str:
        """Send a task as another program would; its id."""
        return self.send_many(1, task, *args, queue=queue)[0]

    def send_many(self, count: int, task: str, *args: Any, queue: str = "probe") -> list[str]:
        """Send a task that often; their ids."""
        with Celery(broker=self.stack.broker_url, fixups=[], set_as_current=False) as publisher:
            publisher.conf.task_create_missing_queue_type = self.settings.get("CELERY_QUEUE_TYPE", "classic")
            sent = [str(uuid4()) for _ in range(count)]
            for task_id in sent:
                publisher.send_task(task, args=args, task_id=task_id, queue=queue, ignore_result=True)
        return sent

    def ready(self, queue: str = "probe") -> int:
        """How many messages wait in a queue."""
        with Connection(self.stack.broker_url) as connection, connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)

    def log(self, part: Part, event: str) -> list[dict[str, Any]]:
        """What a worker logged under that name."""
        lines = part.log.read_text().splitlines()
        return [found for line in lines if f'"{event}"' in line and (found := json.loads(line))["event"] == event]


def gone(part: Part, stack: Stack, seconds: float) -> float:
    """Wait until a process has ended; the seconds it took."""
    begun = time.monotonic()
    wait_for(lambda: not stack.alive(part.name), seconds, f"{part.name} to end")
    del stack.parts[part.name]
    return time.monotonic() - begun


@contextmanager
def probes(broker_url: str | None = None, **settings: str) -> Iterator[Probes]:
    """Everything but the workers; the queues are gone before and afterwards."""
    with Stack(broker_url) as stack:
        stack.start_redis()
        stack.wait_until_ready()
        if broker_url:
            delete_queues(broker_url)
        yield Probes(stack, settings)
        stack.close()
        if broker_url:
            delete_queues(broker_url)


def delete_queues(url: str) -> None:
    with Connection(url, connect_timeout=5) as connection, connection.channel() as channel:
        for name in QUEUES:
            Queue(name, Exchange(name, "direct"), name, channel=channel).delete()
            Exchange(name, "direct", channel=channel).delete()
        for name in ("workers_delay_probe_5", "workers_delay_probe_5_quorum"):
            channel.queue_delete(name)
