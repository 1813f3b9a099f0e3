"""Checks that may hang, and whoever asks for them may not."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Watched(Generic[T]):
    """A check that is made in a thread of its own, by one at a time, and whose finding is kept for some seconds.

    Args:
        look: makes it. It must not raise.
        patience: seconds after which a finding is not waited for any more.
        kept: seconds for which a finding is good.
        clock: seconds, monotonic.
    """

    def __init__(
        self, look: Callable[[], T], patience: float, kept: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look, self._patience, self._kept, self._clock = look, patience, kept, clock
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._asked = 0.0
        self._found: tuple[T, float] | None = None

    def ask(self) -> None:
        """Begin to look, unless somebody does or has lately."""
        with self._lock:
            if self._asking is not None or self._fresh() is not None:
                return
            self._asked = self._clock()
            self._asking = threading.Thread(target=self._run, name="check", daemon=True)
            self._asking.start()

    def found(self) -> T | None:
        """What is found, or None if that takes too long."""
        self.ask()
        with self._lock:
            asking, left = self._asking, self._asked + self._patience - self._clock()
        if asking is not None and left > 0:
            asking.join(left)
        with self._lock:
            return self._fresh()

    def last(self) -> T | None:
        """What was found last, without looking."""
        with self._lock:
            return None if self._found is None else self._found[0]

    def _fresh(self) -> T | None:
        if self._found is None or self._clock() - self._found[1] > self._kept:
            return None
        return self._found[0]

    def _run(self) -> None:
        found = self._look()
        with self._lock:
            self._found, self._asking = (found, self._clock()), None
