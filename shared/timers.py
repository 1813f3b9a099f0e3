"""Rounds that a worker makes on its own timer, without a scheduler: those of the registry's `timers`."""

import pkgutil
import threading
from collections.abc import Callable, Iterable
from typing import Any

from celery import signals

from shared.call import Call, WorkerApp
from shared.deadline import Deadline
from shared.errors import WorkerError
from shared.logging_utils import get_logger

log = get_logger(__name__)

Round = Callable[[Call], None]


def install(app: WorkerApp) -> None:
    """Begin the rounds once the worker consumes, and end them when it stops."""
    rounds = [pkgutil.resolve_name(name) for worker in app.profile.workers for name in worker.timers]

    def begin(**_: Any) -> None:
        threading.Thread(target=run, args=(app, rounds), name="timers", daemon=True).start()

    if rounds:
        signals.worker_ready.connect(begin, weak=False)


def run(app: WorkerApp, rounds: Iterable[Round]) -> None:
    """Make the rounds, one after the other, every REAPER_INTERVAL_SECONDS until the process stops.

    Each in a thread of its own: one that fails in a way nobody thought of is reported, and is not the last.
    """
    resources = app.resources
    while not resources.stopping.wait(resources.settings.reaper_interval):
        for make in rounds:
            one = threading.Thread(target=_make, args=(app, make), name=make.__module__, daemon=True)
            one.start()
            one.join()


def _make(app: WorkerApp, make: Round) -> None:
    seconds = app.resources.settings.task_deadline
    name = make.__module__
    call = Call(
        app=app,
        task=name,
        task_id=name,
        queue="",
        headers={},
        slice=Deadline.after(seconds, name),
        deadline=Deadline.after(seconds, name),
    )
    try:
        make(call)
    except WorkerError as error:
        log.warning("round_failed", round=name, reason=str(error))
