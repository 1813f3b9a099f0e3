"""A fleet of one slot in which nothing happens by itself: each delivery is a call, and any may be lost, copied or die.

The state store is a real Redis, the seam and the task are the fleet's own. Only the broker is a list.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn
from uuid import uuid4

import redis
from celery.exceptions import Reject, Retry

from config.workers import profile_named
from shared import claims
from shared.call import Call, WorkerApp
from shared.celery_app import build_app
from shared.claims import Claims, Lease
from shared.config import Settings
from shared.deadline import Deadline
from shared.workflows.client import TaskClient
from shared.workflows.engines.celery import CeleryEngine, FleetSettings
from shared.workflows.run_reads import REGISTER_KEY
from shared.workflows.run_store import RunStore
from shared.workflows.steps import STEP_TASK, Runs
from shared.workflows.sweep import sweep
from shared.workflows.views import RunView
from tests.conformance.engines import LIMITS, Growing, environment


class Died(BaseException):
    """The process is gone: nothing catches that."""


@dataclass
class Fate:
    """When a process dies: before it asks for the so-manieth thing from now; None: it lives."""

    left: int | None = None
    asked: int = 0
    away: int = 0  # how many in a row are not answered, in the place of a death
    dead: bool = False  # a step's own death is contained by the seam; a process that is gone asks for nothing more

    def die(self) -> NoReturn:
        self.left, self.dead = None, True
        raise Died

    def ask(self) -> None:
        if self.dead:
            raise Died
        self.asked += 1
        if self.left is not None:
            self.left -= 1
            if self.left <= 0 and self.away:
                self.left = None if self.left <= -self.away else self.left
                raise redis.ConnectionError("refused")
            if self.left <= 0:
                self.die()


class Mortal(redis.Redis):
    """A connection to the state store at which processes die."""

    fate: Fate

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.fate.ask()
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, *args: Any, **options: Any) -> Any:
        self.fate.ask()
        return super().pipeline(*args, **options)


class Unrenewed(Claims):
    """Leases that the desk ends itself."""

    def _renew_always(self) -> None:
        return


@dataclass
class Message:
    """A message on its way."""

    kwargs: dict[str, Any]
    headers: dict[str, Any]
    retries: int = 0
    task_id: str = field(default_factory=lambda: uuid4().hex)

    @property
    def place(self) -> tuple[str, int | None, int]:
        return self.kwargs["step"], self.kwargs.get("index"), self.kwargs.get("attempt", 1)


@dataclass
class Desk:
    """Everything of a fleet."""

    app: WorkerApp
    engine: CeleryEngine
    workflows: Growing
    redis: redis.Redis
    fate: Fate
    messages: list[Message] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    broker_is_away: bool = False

    def client(self, *owners: Any) -> TaskClient:
        self.workflows.add(owners)
        return TaskClient(self.engine, self.workflows, LIMITS)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        """In the place of both applications'."""
        self.fate.ask()
        if self.broker_is_away:
            raise OSError("connection refused")
        assert (name, args or []) == (STEP_TASK, [])
        headers = dict(options.get("headers") or {})
        message = Message(dict(kwargs), headers, int(options.get("retries") or 0))
        self.messages.append(message)
        self.sent.append(replace(message))

    def deliver(self, message: Message) -> str:
        """One delivery, as a worker makes it: how it ended."""
        seam = self.app.tasks[STEP_TASK]
        seam.push_request(
            id=message.task_id,
            root_id=message.task_id,
            headers=dict(message.headers),
            kwargs=message.kwargs,
            args=(),
            retries=message.retries,
            delivery_info={"routing_key": "workers_workflow_default", "exchange": ""},
            called_directly=False,
        )
        try:
            seam(**message.kwargs)
        except Died:
            self.fate.dead = False
            self.end_leases()
            return "died"
        except Reject:
            self.messages.append(message)
            return "rejected"
        except Retry:
            return "retried"
        except Exception as error:  # noqa: BLE001 # as Celery has it
            return f"failed: {error}"
        finally:
            seam.request_stack.pop()
        return "done"

    def end_leases(self) -> None:
        """Whatever a dead process held is free."""
        for key in self.redis.scan_iter("workers:workflow*:claims"):
            for what, held in dict(self.redis.hgetall(key)).items():
                if " " in str(held):
                    self.redis.hset(key, what, f"{str(held).split()[0]} 1")

    def drain(self, chance: random.Random | None = None) -> None:
        """Deliver until nothing is left, in order or at random."""
        for _ in range(5_000):
            if not self.messages:
                return
            self.deliver(self.messages.pop(chance.randrange(len(self.messages)) if chance else 0))
        raise AssertionError("messages without end")

    def call(self) -> Call:
        deadline = Deadline.after(60, "a round")
        return Call(self.app, "sweeper", "sweeper", "", {}, deadline, deadline)

    def sweep(self) -> None:
        """A round of the sweeper, to which all runs are due."""
        for run_id in self.redis.zrange(REGISTER_KEY, 0, -1):
            self.redis.zadd(REGISTER_KEY, {str(run_id): 0})
        sweep(self.call())

    def sweep_to_the_end(self, client: TaskClient, run_id: str, rounds: int = 12) -> RunView:
        for _ in range(rounds):
            if client.status(run_id).ended is not None:
                break
            self.sweep()
            self.drain()
        return client.status(run_id)

    def all_keys(self) -> set[str]:
        return set(self.redis.scan_iter("workers:workflow*"))


@contextmanager
def desk(redis_url: str, **more: str) -> Iterator[Desk]:
    """A desk on an empty state store."""
    said = environment(redis_url, redis_url, **more)
    settings, known, fate = Settings.load(said), Growing([]), Fate()
    plain: redis.Redis = redis.Redis.from_url(redis_url, decode_responses=True)
    plain.flushdb()
    mortal = Mortal.from_url(redis_url, decode_responses=True)
    mortal.fate = fate  # type: ignore[attr-defined] # it is a Mortal
    app = build_app(profile_named("general"), settings)
    store = RunStore(mortal, settings.stall, settings.workflow_retention)
    app.resources.held("workflows", lambda: Runs(store, known))
    app.resources._claims = Unrenewed(mortal, 60)
    engine = CeleryEngine(FleetSettings.load(said), known, LIMITS)
    engine._store, engine._fleet = store, replace(engine._fleet, store=store)
    found = Desk(app, engine, known, plain, fate)
    app.send_task = engine._app.send_task = found.send_task  # type: ignore[method-assign]
    try:
        yield found
    finally:
        engine.close()
        app.resources.close()
        app.close()
        plain.close()


def taken(desk: Desk, what: str, run_id: str) -> Lease:
    """The lease of another process on a piece of work."""
    claim = claims.Claim(f"workers:workflow:{run_id}", what, 3_600)
    lease = desk.app.resources.claims.take(claim)
    assert isinstance(lease, Lease)
    return lease
