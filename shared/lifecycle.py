"""What a process holds while it lives: its connections, made by the process that uses them, closed when it ends.

Nothing is made at import or before a fork: a socket shared with a forked child belongs to neither.
"""

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import redis
from celery import signals
from celery.bootsteps import StartStopStep

from shared.api_client import InternalAPIClient
from shared.claims import Claims
from shared.config import Settings
from shared.drain import Drain, obey_parent
from shared.execution_state import ExecutionState
from shared.health import Verdict, look
from shared.heartbeat import Heartbeat
from shared.logging_utils import configure_logging, end_context, get_logger, log_crashes
from shared.redis_connection import redis_client

log = get_logger(__name__)


class _Closable(Protocol):
    def close(self) -> None: ...


H = TypeVar("H", bound=_Closable)


class Resources:
    """The client and the state store of one process, each made when it is first asked for.

    Attributes:
        heartbeat: of the loop that takes messages.
        stopping: set once the process was told to stop: long work hands itself back then.
        slots: tasks that this process runs at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = threading.Event()
        self.heartbeat = Heartbeat()
        self.slots = 1
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._client: InternalAPIClient | None = None
        self._redis: redis.Redis | None = None
        self._state: ExecutionState | None = None
        self._claims: Claims | None = None
        self._held: dict[str, Any] = {}

    def held(self, name: str, make: Callable[[], H]) -> H:
        """What this process holds besides, by a name: made when it is first asked for, closed with the process."""
        with self._lock:
            self._leave_parents()
            if name not in self._held:
                self._held[name] = make()
            found: H = self._held[name]
            return found

    @property
    def client(self) -> InternalAPIClient:
        """This process's connections to the backend."""
        with self._lock:
            self._leave_parents()
            if self._client is None:
                self._client = InternalAPIClient(self.settings, self.slots, self.stopping.wait)
            return self._client

    @property
    def state(self) -> ExecutionState:
        """This process's connections to the state store."""
        with self._lock:
            self._leave_parents()
            if self._state is None:
                settings = self.settings
                self._state = ExecutionState(self._store(), settings.execution_deadline, settings.stall)
            return self._state

    @property
    def claims(self) -> Claims:
        """This process's leases."""
        with self._lock:
            self._leave_parents()
            if self._claims is None:
                self._claims = Claims(self._store(), self.settings.lease)
            return self._claims

    def _store(self) -> redis.Redis:
        if self._redis is None:
            self._redis = redis_client(self.settings)
        return self._redis

    def begin_anew(self) -> None:
        """In a forked child: what a thread of the parent held at that moment, would be held for ever."""
        self._lock, self.stopping = threading.Lock(), threading.Event()

    def _leave_parents(self) -> None:
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._client = self._redis = self._state = self._claims = None
            self._held = {}
            self.slots = 1  # a forked child runs one task at a time

    def close(self) -> None:
        """Close what this process opened."""
        with self._lock:
            self._leave_parents()
            for held in (self._claims, self._client, *self._held.values(), self._redis):
                if held is not None:
                    held.close()
            self._client = self._redis = self._state = self._claims = None
            self._held = {}


def install(resources: Resources, steps: set[type]) -> None:
    """Connect a worker process's life to Celery's signals, and to the steps of the worker's blueprint.

    Source: https://docs.celeryq.dev/en/stable/userguide/signals.html
    """
    settings = resources.settings

    def set_up_logging(loglevel: int, **_: Any) -> None:
        # WARNING is what Celery's command line says when nobody said anything.
        said = settings.log_level if loglevel == logging.WARNING else logging.getLevelName(loglevel)
        configure_logging(said, settings.log_format, settings.secrets())

    def count_slots(instance: Any, **_: Any) -> None:
        resources.slots = instance.max_concurrency or instance.concurrency
        gc.freeze()  # the collector writes to what it looks at: each forked child would have a copy of all this

    def say_ready(sender: Any, **_: Any) -> None:
        pool = sender.app.conf.worker_pool
        log.info("worker_ready", node=sender.hostname, pool=pool, slots=resources.slots, **settings.describe())
        threading.Thread(target=_say_what_may_be_lost, args=(settings,), name="state-store", daemon=True).start()

    def close(**_: Any) -> None:
        resources.close()

    def end_task(retval: Any = None, **_: Any) -> None:
        end_context()
        forget_frames(retval)

    # At once: what Celery has to say before it asks for the log is a line too.
    configure_logging(settings.log_level, settings.log_format, settings.secrets())
    log_crashes()
    # A receiver keeps Celery from taking over the root logger.
    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.celeryd_after_setup.connect(count_slots, weak=False)
    signals.worker_ready.connect(say_ready, weak=False)
    signals.worker_shutdown.connect(close, weak=False)
    signals.worker_process_shutdown.connect(close, weak=False)
    signals.task_postrun.connect(end_task, weak=False)
    _install_stop(resources, steps)


def forget_frames(ended: object) -> None:
    """Let go of the frames that an error, and those behind it, came through; what is no error is left as it is.

    Celery has written them down by then. Its own frame holds the error in turn, and billiard's list of where each
    instruction of every frame stands, 0.3 MB for each failure, which the collector of cycles does not count.
    """
    while isinstance(ended, BaseException) and ended.__traceback__ is not None:
        ended.__traceback__ = None
        ended = getattr(ended, "exc", None) or ended.__cause__ or ended.__context__


def _say_what_may_be_lost(settings: Settings) -> None:
    """Warn of a state store that throws things away; the worker works all the same."""
    for finding in look(settings, ["state store"]):
        if finding.verdict is not Verdict.OK:
            log.warning("state_store", what=finding.what, found=finding.found, remedy=finding.remedy)


def _install_stop(resources: Resources, steps: set[type]) -> None:
    drain = Drain(resources.stopping, resources.settings.drain)

    def know_worker(instance: Any, **_: Any) -> None:
        drain.worker = instance

    def have_one_stop(**_: Any) -> None:
        # Celery's cold stop kills tasks in the middle, and a second signal would ask for it.
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.getsignal(signal.SIGTERM))

    def stop(**_: Any) -> None:
        drain.begin()

    def obey(**_: Any) -> None:
        resources.begin_anew()
        obey_parent(resources.stopping)

    class StopClock(StartStopStep):  # type: ignore[misc] # Celery ships no types
        """Not every stop comes by a signal: a remote command and an error that ends the worker wait for tasks too."""

        def close(self, _worker: Any) -> None:
            drain.begin()

    steps.add(StopClock)
    signals.celeryd_after_setup.connect(know_worker, weak=False)
    signals.worker_ready.connect(have_one_stop, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_process_init.connect(obey, weak=False)
