"""The tools' capacity: so many run, so many wait, and no more are accepted."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from django.conf import settings

from sandbox.backend.tools.process import ToolProcess


class ToolPool:
    """Threads that each own one tool process. `instance` names this process in the claims it takes."""

    def __init__(self, workers: int, queue: int, threads: int) -> None:
        self.instance = uuid.uuid4().hex
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="tool")
        self._lock = threading.Lock()
        self._free = workers + queue
        self._done: dict[uuid.UUID, threading.Event] = {}
        self._local = threading.local()
        # Requests that wait for a tool may not hold every thread: the status calls of finished files come
        # through the same threads.
        self._seats = threading.BoundedSemaphore(max(1, threads // 2))

    def reserve(self) -> bool:
        """Take a place; False when there is none. A place is given back by `cancel` or by the end of the job."""
        with self._lock:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    def cancel(self) -> None:
        """Give back a place that was not used."""
        with self._lock:
            self._free += 1

    def start(self, key: uuid.UUID, job: Callable[[], None]) -> Future[None]:
        """Run `job` in the place that was reserved."""
        done = threading.Event()
        with self._lock:
            self._done[key] = done

        def run() -> None:
            try:
                job()
            finally:
                with self._lock:
                    self._free += 1
                    del self._done[key]
                done.set()

        return self._executor.submit(run)

    def wait(self, key: uuid.UUID, seconds: float) -> None:
        """Return when the job is done, after `seconds`, or at once when too many requests wait already."""
        with self._lock:
            done = self._done.get(key)
        if done is None or seconds <= 0 or not self._seats.acquire(blocking=False):
            return
        try:
            done.wait(seconds)
        finally:
            self._seats.release()

    def process(self) -> ToolProcess:
        """The tool process of the calling thread."""
        process: ToolProcess | None = getattr(self._local, "process", None)
        if process is None:
            process = self._local.process = ToolProcess()
        return process


@functools.cache
def pool() -> ToolPool:
    """The process's own; the server asks for it first."""
    config = settings.SANDBOX
    return ToolPool(config.tool_workers, config.tool_queue, config.threads)
