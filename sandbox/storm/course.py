"""The course of a storm: begin, blow, calm down, look."""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import httpx

from sandbox.driver import Driver
from sandbox.stack import FOUR, Stack, StackError
from sandbox.storm.evidence import gather
from sandbox.storm.judge import Evidence, is_open
from sandbox.storm.plan import BACKEND_SETTINGS, WEATHER, WORKER_SETTINGS, plan
from sandbox.storm.supervisor import GRACE_SECONDS, Supervisor
from sandbox.storm.traffic import Traffic

_LOOK_SECONDS = 0.1
_LOOK_AGAIN_SECONDS = 2.0  # a look at everything is a second's work
_SAY_SECONDS = 5.0
_START_SECONDS = 60.0
_PREFORK_SLOTS = "4"  # a process each


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a storm is told.

    Attributes:
        minutes: how long it blows.
        seed: what it does, and when.
        broker: `rabbitmq` or `redis`.
        pool: `threads` or `prefork`, of every worker.
        workers: processes that take files.
        patience: seconds until it must be quiet again.
    """

    minutes: float
    seed: int
    broker: str
    pool: str
    workers: int
    patience: float


class Course:
    """One storm over one stack. `say` gets a line now and then.

    Attributes:
        workers: the parts that are workers.
        supervisor: what was done to which part.
    """

    def __init__(self, stack: Stack, options: Options, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._options = options
        self._say = say
        self._begun = time.monotonic()
        self._said = -_SAY_SECONDS
        self._weather_of = 0
        self.workers = _names(options.workers)
        self.supervisor = Supervisor(stack)

    def start(self) -> None:
        """Start every part, and wait until all are ready."""
        stack = self._stack
        stack.start_redis(persistent=True)
        if self._options.broker == "rabbitmq":
            stack.start_rabbitmq()
        else:
            stack.start_redis_broker()
        stack.start_backend(**BACKEND_SETTINGS)
        stack.wait_until_ready()
        pool = ["--pool", self._options.pool]
        pool += ["--concurrency", _PREFORK_SLOTS] if self._options.pool == "prefork" else []
        for name in self.workers:
            argv = [sys.executable, "-P", "-m", "shared", name.partition("-")[0], "--hostname", f"{name}@%h", *pool]
            stack.start(name, argv, stack.environment(**WORKER_SETTINGS))
        stack.wait_until_ready()

    def blow(self, driver: Driver, traffic: Traffic) -> None:
        """Everything that the plan has, while the users go on."""
        self._begun = time.monotonic()
        end = self._options.minutes * 60
        blows = plan(self._options.seed, self._options.minutes, self.workers)
        traffic.start()
        while (now := self._now()) < end:
            while blows and blows[0].at <= now:
                self.supervisor.strike(blows.pop(0))
            self.supervisor.look(now)
            self._make_weather(driver)
            done = sum(sum(counts.values()) for counts in self.supervisor.done.values())
            self._progress(f"{len(traffic.sent)} executions confirmed, {done} blows dealt")
            time.sleep(_LOOK_SECONDS)

    def calm_down(self, driver: Driver, traffic: Traffic) -> Evidence:
        """Fair weather, everything alive; look until it is quiet, or patience is at its end, and say what there is."""
        since = self._now()
        self.supervisor.calm()
        self._wait_until_all_are_back()
        driver.control("PUT", "switches", {"reset": True, "tool_seconds": WEATHER["tool_seconds"]})
        traffic.stop()
        quiet = 0
        while quiet < 2 and self._now() < since + self._options.patience:
            time.sleep(_LOOK_AGAIN_SECONDS)
            self.supervisor.look(self._now())
            quiet = quiet + 1 if self._is_quiet(driver, traffic) else 0
        self._say(f"after {self._now() - since:.0f} s of fair weather it is {'quiet' if quiet else 'not quiet'}")
        return self._end(driver, traffic)

    def _wait_until_all_are_back(self) -> None:
        until = self._now() + _START_SECONDS
        while not all(map(self._stack.ready, self._stack.parts)):
            if self._now() > until:
                self._stack.wait_until_ready(0)
            self.supervisor.look(self._now())
            time.sleep(_LOOK_SECONDS)

    def _end(self, driver: Driver, traffic: Traffic) -> Evidence:
        """End the workers: what one holds goes back to its queue then, and is seen there."""
        for name in self.workers:
            self._stack.kill(name, signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        while any(map(self._stack.alive, self.workers)) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        for name in self.workers:
            self._stack.kill(name)
        return gather(self._stack, driver, traffic.sent)

    def _is_quiet(self, driver: Driver, traffic: Traffic) -> bool:
        try:
            traffic.send_notifications()
            found = gather(self._stack, driver, traffic.sent)
        except (StackError, httpx.HTTPError) as error:
            self._progress(f"cannot look: {error}")
            return False
        waiting = sum(is_open(execution, found.sent) for execution in found.executions)
        messages = sum(found.queues.values())
        self._progress(f"{waiting} of {len(found.executions)} executions are open, {messages} messages in the queues")
        return waiting == 0 and messages == 0

    def _make_weather(self, driver: Driver) -> None:
        """A backend that was started again knows nothing of its faults."""
        pid = self._stack.parts["backend"].pid
        if pid == self._weather_of or not self._stack.ready("backend"):
            return
        with suppress(StackError, httpx.HTTPError):
            driver.control("PUT", "switches", {**WEATHER, "seed": self._options.seed})
            self._weather_of = pid

    def _now(self) -> float:
        return time.monotonic() - self._begun

    def _progress(self, text: str) -> None:
        if self._now() - self._said >= _SAY_SECONDS:
            self._said = self._now()
            self._say(f"  {self._said:5.0f} s  {text}")


def _names(files: int) -> Sequence[str]:
    """The parts that are workers: one of each of the four, and the further ones that take files."""
    return (*FOUR, *(f"file_processing-{number}" for number in range(2, files + 1)))
