"""How much of the backend one process asks for at once, and when it may ask again.

Two rules, both of this process alone. A bulkhead: requests that make the backend work long share a part of the
connections, so that the quick ones (a file's status, an execution's end) always find one free. A pause: once the
backend said when to come back, none of our threads asks that kind of thing before, not only the one that heard it.

Source: M. Nygard, Release It! (2018), on bulkheads and on back pressure.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from monitoring.prometheus_metrics import BACKEND_HELD
from shared.deadline import Deadline
from shared.errors import BackendBusyError

_LONGEST_PAUSE = 10.0  # seconds: a Retry-After of a day must not silence a process for a day
_LONGEST_SPREAD = 1.0  # seconds after a pause within which the threads that waited go on


class Gate:
    """The way to one group of routes.

    Args:
        group: its name, for metrics and errors.
        room: what its requests share with those of other groups; None for as much as there is.
        sleep: how to wait; true if the wait was cut short, as `Event.wait` says when the process stops.
    """

    def __init__(
        self,
        group: str,
        room: threading.Semaphore | None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group, self._room, self._sleep, self._clock = group, room, sleep, clock
        self._opens_at, self._lock = 0.0, threading.Lock()

    def pause(self, seconds: float) -> None:
        """Let nobody through for that many seconds, ten at most."""
        with self._lock:
            self._opens_at = max(self._opens_at, self._clock() + min(seconds, _LONGEST_PAUSE))

    @contextmanager
    def passing(self, deadline: Deadline) -> Iterator[None]:
        """Wait for the end of a pause and for room, and hold the room. Who hears of a pause here, starts it for all.

        Raises:
            BackendBusyError: neither came within the deadline; nothing was sent.
        """
        waited_for = self._enter(deadline)
        while waited_for < self._opens_at:  # another pause began while we waited, be it for room
            self._leave()
            waited_for = self._enter(deadline)
        try:
            yield
        except BackendBusyError as busy:
            if busy.retry_after:
                self.pause(busy.retry_after)  # before the room is another's
            raise
        finally:
            self._leave()

    def _enter(self, deadline: Deadline) -> float:
        """Wait for the end of the pause, then for room. Returns when the pause ended, by the clock."""
        opens_at = self._opens_at
        self._wait_until(opens_at, deadline)
        if self._room is not None and not self._room.acquire(blocking=False):
            BACKEND_HELD.inc(group=self._group, reason="room")
            with deadline.step("waiting for room at the backend"):
                found = self._room.acquire(timeout=deadline.remaining)
            if not found:
                raise BackendBusyError(f"no room for another of the {self._group} requests of this process", None)
        return opens_at

    def _wait_until(self, opens_at: float, deadline: Deadline) -> None:
        left = opens_at - self._clock()
        if left <= 0:
            return
        BACKEND_HELD.inc(group=self._group, reason="pause")
        if left >= deadline.remaining:
            raise BackendBusyError(f"the backend asked for a pause of its {self._group} requests", left)
        with deadline.step("waiting as the backend asked"):
            longest = min(left, _LONGEST_SPREAD, deadline.remaining - left)
            cut_short = self._sleep(left + random.uniform(0, longest))  # noqa: S311 # spreads load, guards nothing
        if cut_short:
            raise BackendBusyError(f"the backend asked for a pause of its {self._group} requests", left)

    def _leave(self) -> None:
        if self._room is not None:
            self._room.release()
