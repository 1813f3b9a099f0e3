"""Whether the loop of a process goes round: the one sign of life that no task and no other machine can spoil."""

import time
from collections.abc import Callable


class Heartbeat:
    """When the loop was last seen to go round. Its making counts: a process that starts is alive.

    Args:
        clock: seconds, monotonic.
    """

    # So a probe that asks every five seconds hears within 30 s of a loop that hangs. While a broker is frozen the loop
    # waits for it in its own thread, some seconds here and there: 8 s at the most on RabbitMQ, 12 on Redis.
    LONGEST_SECONDS = 25.0
    EVERY_SECONDS = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()

    def beat(self) -> None:
        """The loop goes round."""
        self._at = self._clock()

    @property
    def age(self) -> float:
        """Seconds since it did."""
        return self._clock() - self._at

    @property
    def young(self) -> bool:
        """Whether it goes round still."""
        return self.age <= self.LONGEST_SECONDS
