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
        self.stopping = threading.Event()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="tool")
        self._lock = threading.Lock()
        self._free = workers + queue
        self._done: dict[uuid.UUID, threading.Event] = {}
        self._local = threading.local()
        self._processes: list[ToolProcess] = []
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

    def start(self, key: uuid.UUID, job: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        """Run `job` in the place that was reserved; `failed` gets what it raises."""
        done = threading.Event()
        with self._lock:
            self._done[key] = done

        def end(future: Future[None]) -> None:
            error = future.exception() if not future.cancelled() else None
            if error is not None:
                failed(error)
            with self._lock:
                self._done.pop(key, None)
                self._free += 1
            done.set()

        self._executor.submit(job).add_done_callback(end)

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
            with self._lock:
                self._processes.append(process)
        return process

    def stop(self) -> None:
        """Drop what waits, end what runs: the claims say EXECUTING, and the next process takes them up."""
        self.stopping.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            process.kill()


@functools.cache
def pool() -> ToolPool:
    """Made on first use, so after gunicorn's fork."""
    config = settings.SANDBOX
    return ToolPool(config.tool_workers, config.tool_queue, config.threads)


def stop() -> None:
    """End the pool, if this process ever made one."""
    if pool.cache_info().currsize:
        pool().stop()
