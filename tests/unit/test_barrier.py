"""One execution through every interleaving of deliveries, copies, losses, crashes and expiries: it ends once.

The real tasks under the real seam, over a backend, a state store and a broker in memory. A process dies at any of its
steps: at a request, at a script of the state store, at a message. What it held stays as it was, and its message comes
again, unless the broker loses that too.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from callback.reaper import sweep
from config.queue_routing import DEAD_LETTERS
from config.workers import PROFILES
from shared.celery_app import build_app
from shared.claims import Claims
from shared.execution_state import ExecutionState
from shared.lifecycle import Resources
from shared.state_store import REGISTER_KEY
from tests.deliveries import Deliveries, Message, sent
from tests.fakes import FakeApp, FakeBackend, memory, settings

NAMES = [f"{name}.txt" for name in "abcde"]
SETTINGS = settings(MAX_DELIVERIES="1000")


class DeathError(BaseException):
    """The process is killed here."""


@dataclass
class Fate:
    """When the process at work dies: after so many steps, or never."""

    left: int | None = None

    def step(self, *_: Any) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise DeathError


@dataclass
class World:
    """What outlives processes: the backend, the state store, the broker's messages."""

    redis: Any = field(default_factory=memory)
    fate: Fate = field(default_factory=Fate)
    queue: list[Message] = field(default_factory=list)
    kept: list[Message] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self.backend = FakeBackend(batches=3, pipeline_id="pipe")
        self.backend.on_call = self.fate.step
        self.app = build_app(PROFILES["all"], SETTINGS)
        self.app.send_task = self.publish  # type: ignore[method-assign]
        self.deliveries = Deliveries(self.app)

    def publish(self, task: str, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        self.fate.step()
        self.sent += 1
        place = self.kept if options["queue"] == DEAD_LETTERS else self.queue
        place.append(sent(self.sent, task, args, kwargs, options))
        self.fate.step()

    def fake(self) -> FakeApp:
        """What the process at work holds."""
        return cast("FakeApp", self.app.resources)

    @contextlib.contextmanager
    def process(self, fate: int | None) -> Iterator[None]:
        """A process that lives as long as this block, or dies in it."""
        self.fate.left = fate
        fake = FakeApp(backend=self.backend, settings=SETTINGS, redis=self.redis)
        fake.state = _FragileState(self.redis, 100, 10)
        fake.claims = _FragileClaims(self.redis, 15)
        fake.state.fate = fake.claims.fate = self.fate
        self.app.resources = cast("Resources", fake)
        try:
            yield
        finally:
            self.fate.left = None
            fake.claims.close()

    def deliver(self, message: Message, fate: int | None) -> None:
        """Run a task as a worker would; acknowledged unless the process dies."""
        try:
            with self.process(fate):
                self.deliveries.deliver(message)
        except DeathError:
            return
        self.queue[:] = [other for other in self.queue if other is not message]

    def reap(self, fate: int | None) -> None:
        """A round of the reaper, at a time when every execution is due."""
        for execution_id in self.redis.zrange(REGISTER_KEY, 0, -1):
            self.redis.zadd(REGISTER_KEY, {execution_id: 0})
        with contextlib.suppress(DeathError), self.process(fate):
            sweep(replace(self.fake().call(), app=self.app))

    def bury_the_dead(self) -> None:
        """Every lease ends: nobody is at work between two steps of the machine."""
        for key in self.redis.keys("*:claims"):
            for name, value in self.redis.hgetall(key).items():
                if " " in value:
                    self.redis.hset(key, name, f"{value.split()[0]} 0")


class _Fragile:
    fate: Fate


class _FragileState(_Fragile, ExecutionState):
    def _run_script(self, *arguments: Any) -> Any:
        self.fate.step()
        return super()._run_script(*arguments)


class _FragileClaims(_Fragile, Claims):
    def _ask(self, *arguments: Any) -> Any:
        self.fate.step()
        return super()._ask(*arguments)


# Not the explanations of a failure, which take minutes: it traces every line.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
FATES = st.one_of(st.none(), st.integers(0, 60))


class Barrier(RuleBasedStateMachine):
    """One execution of five files in three batches."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.lost = self.flushed = self.reaped = False
        files = {name: {"file_name": name, "file_hash": f"hash-{name}"} for name in NAMES}
        kick_off = Message(
            "async_execute_bin",
            ["org", "wf", "ex", files],
            {"pipeline_id": "pipe"},
            {},
            "celery_api_deployments",
            "kick",
        )
        self.world.queue.append(kick_off)

    @precondition(lambda self: self.world.queue)
    @rule(which=st.integers(0, 20), fate=FATES)
    def deliver(self, which: int, fate: int | None) -> None:
        self.world.deliver(self.world.queue[which % len(self.world.queue)], fate)
        self.world.bury_the_dead()

    @precondition(lambda self: self.world.queue)
    @rule(which=st.integers(0, 20))
    def deliver_twice(self, which: int) -> None:
        self.world.queue.append(replace(self.world.queue[which % len(self.world.queue)]))

    @precondition(lambda self: self.world.queue and self.started())
    @rule(which=st.integers(0, 20))
    def lose(self, which: int) -> None:
        self.lost = True
        self.world.queue.pop(which % len(self.world.queue))

    @rule(fate=FATES)
    def reap(self, fate: int | None) -> None:
        self.reaped = True
        self.world.reap(fate)
        self.world.bury_the_dead()

    @precondition(lambda self: not self.flushed and self.started() and self.world.queue)
    @rule()
    def lose_the_state(self) -> None:
        self.flushed = True
        self.world.redis.flushall()

    def started(self) -> bool:
        """Whether the execution is known: before that, nobody but its publisher could know that it was lost."""
        return bool(self.world.redis.exists("workers:execution:ex:run"))

    @invariant()
    def no_file_is_told_twice(self) -> None:
        if not self.flushed:
            pushed = self.world.redis.lrange("api_results:wf:ex", 0, -1)
            assert len(pushed) == len(set(pushed)) <= len(NAMES)

    def teardown(self) -> None:
        world = self.world
        for _ in range(12):
            for _ in range(200):
                if world.queue:
                    world.deliver(world.queue[0], None)
                    world.bury_the_dead()
            assert not world.queue
            world.reap(None)
            world.bury_the_dead()
        if world.backend.ended is None and self.flushed and not self.started():
            return  # nothing of it was left anywhere: `workers check --orphans` is for such
        assert world.backend.ended is not None
        status, counts, message = world.backend.ended
        assert world.backend.calls.count("end_execution") == 1
        assert counts.total_files == counts.successful_files + counts.failed_files
        assert status == "ERROR" or counts.successful_files
        if not (self.lost or self.flushed or self.reaped):
            assert (status, counts.total_files, counts.successful_files, message) == ("COMPLETED", 5, 5, None)
            assert world.backend.files == {f"fe-{name}": "COMPLETED" for name in NAMES}
        left = {key for key in world.fake().kept() if not key.startswith(("api_results:", "context:"))}
        assert {key for key in left if not key.endswith(":ended")} == set()
        super().teardown()


TestBarrier = Barrier.TestCase
TestBarrier.settings = hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None, phases=PHASES)
