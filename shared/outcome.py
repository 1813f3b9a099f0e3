"""How a delivery ended: one count, one time, one line, and for an error a word to who looks at the fleet now."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery.exceptions import Reject

from monitoring.prometheus_metrics import (
    MESSAGES_DROPPED,
    TASK_DUPLICATE,
    TASK_FAILED,
    TASK_HANDED_BACK,
    TASK_QUEUE_WAIT,
    TASK_REJECTED,
    TASK_RETRIED,
    TASK_RUNTIME,
    TASK_STARTED,
    TASK_SUCCEEDED,
)
from shared.call import Call
from shared.errors import StateStoreError
from shared.logging_utils import context_fields, get_logger
from shared.passage import trace_id
from shared.task_metrics import queue_label, waited
from shared.tracing import Say

log = get_logger(__name__)

_COUNTERS = {
    "succeeded": TASK_SUCCEEDED,
    "retried": TASK_RETRIED,
    "rejected": TASK_REJECTED,
    "handed_back": TASK_HANDED_BACK,
    "duplicate": TASK_DUPLICATE,
}


@contextmanager
def measured(call: Call, say: Say) -> Iterator[Callable[..., None]]:
    """Count one outcome for a delivery, `failed` unless told otherwise, and log it.

    Yields: what is to be told the `outcome`, the `reason` and the `error`'s class.
    """
    started = time.monotonic()
    labels = {"name": call.task, "queue_name": queue_label(call.queue)}
    TASK_STARTED.inc(**labels)
    wait = waited(call.headers, time.time())
    if wait is not None:
        TASK_QUEUE_WAIT.observe(wait, **labels)
    said: dict[str, Any] = {"outcome": "failed"}
    try:
        yield lambda **more: said.update(more)
    except Reject:
        said["outcome"] = "rejected"
        raise
    finally:
        seconds, trace = time.monotonic() - started, trace_id()
        TASK_RUNTIME.observe(seconds, {"trace_id": trace} if trace else None, **labels)
        say(outcome=said["outcome"])
        log.info("task_ended", queue=call.queue, seconds=round(seconds, 3), **said)
        _count(call, said, labels)


def _count(call: Call, said: dict[str, Any], labels: dict[str, str]) -> None:
    outcome = said["outcome"]
    if outcome in _COUNTERS:
        _COUNTERS[outcome].inc(**labels)
        return
    execution_id, reason = context_fields().get("execution_id"), call.settings.hide(said.get("reason", ""))
    with suppress(StateStoreError):
        call.state.errors.note(task=call.task, queue=call.queue, execution_id=execution_id, error=reason)
    TASK_FAILED.inc(**labels, exception=said.get("error", ""))
    if outcome == "unfinished":
        MESSAGES_DROPPED.inc(**labels, reason="unfinished")
