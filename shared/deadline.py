"""How much time is left. Threads cannot be interrupted, so every request and every wait is cut to what is left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shared.errors import DeadlineExceededError


def _nothing() -> None:
    """What guards work that is nobody else's."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time by a monotonic clock, what it is for, and who spent the time until then.

    Attributes:
        at: seconds on `clock`.
        what: the work it bounds, as an error message names it.
        spent: seconds by step. The parts of one piece of work share it; it belongs to one thread.
        guard: raises if the work may not go on for another reason than its time: it may be another's by now.
    """

    at: float
    what: str
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    spent: dict[str, float] = field(default_factory=dict, repr=False, compare=False)
    guard: Callable[[], None] = field(default=_nothing, repr=False, compare=False)

    @classmethod
    def after(cls, seconds: float, what: str, clock: Callable[[], float] = time.monotonic) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(clock() + seconds, what, clock)

    def beside(self, seconds: float, what: str) -> "Deadline":
        """Another deadline for the same steps, that many seconds from now, be it sooner or later."""
        return Deadline(self.clock() + seconds, what, self.clock, self.spent, self.guard)

    def within(self, seconds: float, what: str) -> "Deadline":
        """The deadline of a part of this work: that many seconds from now, and never later than the whole."""
        return Deadline(min(self.at, self.clock() + seconds), what, self.clock, self.spent, self.guard)

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - self.clock())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.remaining == 0.0

    def check(self) -> None:
        """Raise the error of `exceeded` if no time is left, or what the guard raises."""
        self.guard()
        if self.over:
            raise self.exceeded()

    def exceeded(self) -> DeadlineExceededError:
        """The error that says so, with the steps that spent most of the time."""
        most = sorted(self.spent.items(), key=lambda item: -item[1])[:3]
        account = ", ".join(f"{name} took {seconds:.1f} s" for name, seconds in most)
        return DeadlineExceededError(f"{self.what} ran out of time{': ' if most else ''}{account}")

    def cut(self, seconds: float) -> float:
        """That many seconds, or what is left, whichever is less."""
        return min(seconds, self.remaining)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Charge the time until the end of the block to that step."""
        begun = self.clock()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + self.clock() - begun
