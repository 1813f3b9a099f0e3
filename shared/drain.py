"""The end of a process: told to stop, it is gone after DRAIN_SECONDS, whatever thread or child of it is wedged.

Celery's own stop waits for its tasks as long as they take, and a thread cannot be ended from outside. So the process
ends itself, once, for all of them.
"""

import _thread
import os
import signal
import threading
import time
from typing import Any

from celery.worker import state

from shared.logging_utils import get_logger

log = get_logger(__name__)

EXIT_FORCED = 70
# Billiard gives a child's SIGTERM, SIGQUIT, SIGHUP and SIGUSR1 handlers of its own after ours were set, and they end
# its task in the middle; what is ignored it leaves ignored. So children ignore SIGTERM, and this one says stop.
STOP_CHILD = signal.SIGUSR2
_GIVE_BACK_SECONDS = 2.0


class Drain:
    """One per process.

    Attributes:
        worker: Celery's worker, as soon as there is one.
    """

    def __init__(self, stopping: threading.Event, seconds: float) -> None:
        self.worker: Any = None
        self._stopping, self._seconds = stopping, seconds
        self._begun = False

    def begin(self) -> None:
        """Start the clock; once, however often the process is told. Safe in a signal handler.

        A handler runs between any two instructions of the main thread, which may hold the lock of the event, or the one
        under which threads are registered: only a thread that `threading` does not know can be started there.
        """
        if not self._begun:
            self._begun = True
            _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        # The process usually ends below this thread, while it sleeps.
        until = time.monotonic() + self._seconds
        self._stopping.set()
        self._signal_children(STOP_CHILD)
        time.sleep(max(0.0, until - time.monotonic()))
        # Tasks that ended in the last moment have none left here.
        running = [{"task": request.name, "task_id": request.id} for request in list(state.requests.values())]
        log.error("stop_forced", seconds=self._seconds, still_running=running)
        self._signal_children(signal.SIGKILL)
        self._give_back()
        os._exit(EXIT_FORCED)

    def _signal_children(self, number: signal.Signals) -> None:
        # Not billiard's active_children(), which reaps them under the eyes of the main thread.
        pool = getattr(getattr(self.worker, "pool", None), "_pool", None)
        for child in list(getattr(pool, "_pool", ())):
            try:
                os.kill(child.pid, number)
            except (ProcessLookupError, TypeError):  # it has ended, or has not begun
                continue

    def _give_back(self) -> None:
        """Put the unacknowledged messages of a Redis broker back; one of RabbitMQ does that itself.

        Closing a channel does so in kombu, and takes what the broker has already popped for us. The process that stops
        has no other way left to close it, and must not wait for a broker that is away.
        """
        connection = getattr(getattr(self.worker, "consumer", None), "connection", None)
        if connection is None or connection.transport.driver_type != "redis":
            return

        def close() -> None:
            connection.default_channel.close()  # the property itself connects where the connection is lost

        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(_GIVE_BACK_SECONDS)


def obey_parent(stopping: threading.Event) -> None:
    """In a child of a prefork pool: its main process says when to stop, and kills it when the time is over.

    A SIGTERM to the whole process group would otherwise end tasks in the middle. That the main process is gone, even
    killed, the kernel tells its children with SIGKILL (Celery sets PR_SET_PDEATHSIG).
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    # The event's lock may be held by the very task that the handler interrupts.
    signal.signal(STOP_CHILD, lambda *_: _thread.start_new_thread(stopping.set, ()) and None)
