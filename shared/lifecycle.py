"""What a process holds while it lives: its connections, made by the process that uses them, closed when it ends.

Nothing is made at import or before a fork: a socket shared with a forked child belongs to neither.
"""

import logging
import os
import threading
from typing import Any

from celery import signals

from shared.api_client import InternalAPIClient
from shared.config import Settings
from shared.execution_state import ExecutionState, redis_client
from shared.logging_utils import configure_logging, get_logger

log = get_logger(__name__)


class Resources:
    """The client and the state store of one process, each made when it is first asked for.

    Attributes:
        stopping: set once the process was told to stop: long work hands itself back then.
        slots: tasks that this process runs at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = threading.Event()
        self.slots = 1
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._client: InternalAPIClient | None = None
        self._state: ExecutionState | None = None

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
                self._state = ExecutionState(redis_client(self.settings), self.settings.execution_deadline)
            return self._state

    def _leave_parents(self) -> None:
        if self._owner != os.getpid():
            self._owner, self._client, self._state = os.getpid(), None, None
            self.slots = 1  # a forked child runs one task at a time

    def close(self) -> None:
        """Close what this process opened."""
        with self._lock:
            self._leave_parents()
            for held in (self._client, self._state):
                if held is not None:
                    held.close()
            self._client = self._state = None


def install(resources: Resources) -> None:
    """Connect a worker process's life to Celery's signals.

    Source: https://docs.celeryq.dev/en/stable/userguide/signals.html
    """
    settings = resources.settings

    def set_up_logging(loglevel: int, **_: Any) -> None:
        # WARNING is what Celery's command line says when nobody said anything.
        said = settings.log_level if loglevel == logging.WARNING else logging.getLevelName(loglevel)
        configure_logging(said, settings.log_format)

    def count_slots(instance: Any, **_: Any) -> None:
        resources.slots = instance.max_concurrency or instance.concurrency

    def say_ready(sender: Any, **_: Any) -> None:
        log.info("worker_ready", node=sender.hostname, slots=resources.slots, **settings.describe())

    def stop(**_: Any) -> None:
        resources.stopping.set()

    def close(**_: Any) -> None:
        resources.close()

    # A receiver keeps Celery from taking over the root logger.
    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.celeryd_after_setup.connect(count_slots, weak=False)
    signals.worker_ready.connect(say_ready, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_shutdown.connect(close, weak=False)
    signals.worker_process_shutdown.connect(close, weak=False)
