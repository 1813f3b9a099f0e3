"""Fewer processes where there is less to do. Celery's own autoscaler sends them SIGTERM, which ours ignore."""

import os
import signal
from contextlib import suppress

from celery.worker import autoscale, state


class Autoscaler(autoscale.Autoscaler):  # type: ignore[misc] # Celery ships no types
    """Celery's own, but processes that are too many end, and only while none of them can have work."""

    def _shrink(self, n: int) -> None:
        """End up to n processes.

        Children of a pool ignore SIGTERM, which may go to a whole group and must not cut their tasks
        (`shared/drain.py`). One that has nothing can be killed; but which has nothing is known for certain only
        while there is no message in hand, for one that a process has not read yet would never end.
        """
        if state.reserved_requests:
            return
        super()._shrink(n)
        for child in list(self.pool._pool._pool):  # noqa: SLF001 # billiard has no other name for them
            if child._controlled_termination:  # noqa: SLF001 # likewise
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
