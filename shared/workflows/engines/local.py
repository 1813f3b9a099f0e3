"""Workflows in threads of this process: nothing outlives it, and no server is needed."""

import queue
import threading
from collections.abc import Callable

from shared.api_client import InternalAPIClient
from shared.config import Settings
from shared.logging_utils import get_logger
from shared.workflows.attempts import Limits
from shared.workflows.catalogue import Catalogue
from shared.workflows.declaration import Declaration
from shared.workflows.engines.local_run import LocalRun
from shared.workflows.errors import RunKeyError, UnknownRunError
from shared.workflows.shape import RunStatus
from shared.workflows.views import Event, RunView

log = get_logger(__name__)

_SLOTS = 32
_MOST_RUNS = 1_000  # that have ended and can still be asked about
_ASK_AGAIN_SECONDS = 1.0  # whether a step runs, where what its condition asks is away


def make(_workflows: Catalogue, limits: Limits) -> "LocalEngine":
    """The engine of this process. The backend's variables are read once a step asks for `ctx.client`."""
    return LocalEngine(limits, lambda: InternalAPIClient(Settings.load(), _SLOTS))


class LocalEngine:
    """Runs in threads.

    Args:
        limits: what may cross a border.
        client: makes the client of the internal API, once a step asks for it.
        slots: steps at once, of all runs together.
    """

    def __init__(self, limits: Limits, client: Callable[[], InternalAPIClient], slots: int = _SLOTS) -> None:
        self.limits = limits
        self._make_client = client
        self._client: InternalAPIClient | None = None
        self._lock = threading.Lock()
        self._runs: dict[str, LocalRun] = {}
        self._keys: dict[tuple[str, str | None, str], LocalRun] = {}
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._slots, self._threads = slots, 0

    def start(
        self, declaration: Declaration, input_text: str, *, run_key: str | None, organization_id: str | None
    ) -> str:
        """See `Engine`."""
        with self._lock:
            key = (declaration.name, organization_id, run_key or "")
            before = self._keys.get(key) if run_key else None
            if before is not None:
                if before.input_text != input_text:
                    raise RunKeyError(f"run {before.run_id} was started with run_key {run_key!r} and another input")
                return before.run_id
            run = LocalRun(self, declaration, input_text, organization_id)
            self._forget_old()
            self._runs[run.run_id] = run
            if run_key:
                self._keys[key] = run
        threading.Thread(target=run.drive, name=f"run {declaration.name}", daemon=True).start()
        return run.run_id

    def look(self, run_id: str) -> RunView:
        """See `Engine`."""
        return self._run(run_id).view()

    def output(self, run_id: str, step: str) -> str | None:
        """See `Engine`."""
        return self._run(run_id).outputs.get(step)

    def events(self, run_id: str, after: str | None, seconds: float) -> list[Event]:
        """See `Engine`."""
        return self._run(run_id).events_behind(int(after or 0), seconds)

    def cancel(self, run_id: str) -> bool:
        """See `Engine`."""
        return self._run(run_id).cancel()

    def close(self) -> None:
        """Threads end when what they do has ended; nobody waits for them."""
        with self._lock:
            runs, threads, client = list(self._runs.values()), self._threads, self._client
            self._threads, self._client = 0, None
        for run in runs:
            run.cancel()
        for _ in range(threads):
            self._jobs.put(None)
        if client is not None:
            client.close()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a thread do that, soon."""
        self._jobs.put(job)
        with self._lock:
            if self._threads < self._slots:
                self._threads += 1
                # Not an executor's, which the end of the process would wait for.
                threading.Thread(target=self._work, name="step", daemon=True).start()

    def client(self) -> InternalAPIClient:
        """The client of the internal API."""
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _run(self, run_id: str) -> "LocalRun":
        with self._lock:
            if run_id not in self._runs:
                raise UnknownRunError(
                    f"there is no run {run_id} in this process; a local run is known to its own alone"
                )
            return self._runs[run_id]

    def _forget_old(self) -> None:
        ended = [run for run in self._runs.values() if run.status is not RunStatus.RUNNING]
        for run in ended[: max(0, len(ended) - _MOST_RUNS)]:
            del self._runs[run.run_id]
            self._keys = {key: kept for key, kept in self._keys.items() if kept is not run}
