"""Deals the blows, and brings every part back: what a container's restart policy does, kept apart from the stack."""

import signal
from collections import Counter, defaultdict

from sandbox.stack import Stack
from sandbox.storm.plan import Blow

# What a container may take between SIGTERM and SIGKILL. The workers are told to need less (DRAIN_SECONDS).
GRACE_SECONDS = 10.0
_NUMBERS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "end": signal.SIGTERM}


class Supervisor:
    """Watches the parts of a stack; `now` is the storm's own clock, in seconds.

    Attributes:
        done: by part, how often each thing was done to it, `gone` (it ended though nobody told it to) and `forced` (it
            outlived its grace) included.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._down_until: dict[str, float] = {}
        self._still_until: dict[str, float] = {}
        self._ending: dict[str, Blow] = {}
        self._told: set[str] = set()
        self.done: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def strike(self, blow: Blow) -> None:
        """Do to a part what the plan says; nothing, if it is dead just now."""
        if not self._stack.alive(blow.part):
            return
        self.done[blow.part][blow.kind] += 1
        self._stack.kill(blow.part, _NUMBERS[blow.kind])
        if blow.kind == "stop":
            self._still_until[blow.part] = blow.at + blow.seconds
            return
        self._told.add(blow.part)
        self._down_until[blow.part] = blow.at + blow.seconds
        if blow.kind == "end":
            self._ending[blow.part] = blow

    def look(self, now: float) -> None:
        """Continue what has stood still long enough, start what has been down long enough, end what does not end."""
        for part, until in list(self._still_until.items()):
            if now >= until:
                del self._still_until[part]
                self._stack.kill(part, signal.SIGCONT)
        for part in list(self._stack.parts):
            if not self._stack.alive(part):
                self._bring_back(part, now)
            elif part in self._ending and now >= self._ending[part].at + GRACE_SECONDS:
                del self._ending[part]
                self.done[part]["forced"] += 1
                self._stack.kill(part)

    def _bring_back(self, part: str, now: float) -> None:
        self._ending.pop(part, None)
        if now < self._down_until.get(part, now):
            return
        if part not in self._told:
            self.done[part]["gone"] += 1
        self._told.discard(part)
        self._still_until.pop(part, None)
        self._stack.restart(part)

    def calm(self) -> None:
        """Nothing stands still or stays down any longer."""
        self._still_until = dict.fromkeys(self._still_until, 0.0)
        self._down_until.clear()
