"""How much time is left. Threads cannot be interrupted, so every request and every wait is cut to what is left."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.errors import DeadlineExceededError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time by a monotonic clock, and what it is for.

    Attributes:
        at: seconds on `clock`.
        what: the work it bounds, as an error message names it.
    """

    at: float
    what: str
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @classmethod
    def after(cls, seconds: float, what: str, clock: Callable[[], float] = time.monotonic) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(clock() + seconds, what, clock)

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - self.clock())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.remaining == 0.0

    def check(self) -> None:
        """Raise DeadlineExceededError if no time is left."""
        if self.over:
            raise DeadlineExceededError(f"{self.what} ran out of time")

    def cut(self, seconds: float) -> float:
        """That many seconds, or what is left, whichever is less."""
        return min(seconds, self.remaining)
