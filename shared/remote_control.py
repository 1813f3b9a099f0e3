"""What a worker process answers to `celery inspect report`, to the monitor, and to whoever else asks on the broker."""

import time
from collections.abc import Iterable
from typing import Any

from celery.worker import control, state
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from monitoring.prometheus_metrics import CIRCUIT_STATE, CIRCUIT_STATES, TASK_RECEIVED
from monitoring.registry import KEPT
from shared.orchestration import FAN_IN
from shared.task_metrics import queue_label

_LONGEST_ID = 100
_SHOWN = {
    "celery_task_succeeded_total": "succeeded",
    "celery_task_failed_total": "failed",
    "celery_task_retried_total": "retried",
    "celery_task_runtime_sum": "seconds",
}


def install() -> None:
    """Answer from now on, over Celery's own of that name, which shows the whole configuration."""
    control.inspect_command(name="report")(report)


def report(worker: Any, **_: Any) -> dict[str, Any]:
    """What this process is and does; without arguments of tasks, which may be somebody's document.

    Returns: profile, queues that it consumes, slots, how many are busy, what runs in them, how many messages were
        taken since its start by queue, what became of tasks by their names, and the circuits' states.
    """
    consumer, runs, samples = worker.consumer.task_consumer, running(), _samples(KEPT.counted())
    return {
        "profile": worker.app.profile.name,
        "queues": [queue.name for queue in consumer.queues] if consumer else [],
        "slots": worker.app.resources.slots,
        "busy": len(runs),
        "running": runs,
        "taken": _taken(samples),
        "tasks": _ended(samples),
        "circuits": _states(samples),
    }


def circuits() -> dict[str, str]:
    """The circuits' states by their groups; of several processes the worst."""
    return _states(_samples(KEPT.counted()))


def _samples(families: Iterable[Family]) -> list[Sample]:
    return [sample for family in families for sample in family.samples]


def _taken(samples: Iterable[Sample]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in samples:
        if one.name == TASK_RECEIVED.name:
            queue = one.labels["queue_name"]
            found[queue] = found.get(queue, 0) + int(one.value)
    return found


def _ended(samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """By the names of tasks: how many deliveries have succeeded, failed and are retried, and their seconds in all."""
    found: dict[str, dict[str, float]] = {}
    for one in samples:
        if one.name in _SHOWN:
            task = found.setdefault(one.labels["name"], dict.fromkeys(_SHOWN.values(), 0.0))
            task[_SHOWN[one.name]] += one.value
    return {name: task for name, task in found.items() if any(task.values())}


def _states(samples: Iterable[Sample]) -> dict[str, str]:
    numbers = {one.labels["group"]: int(one.value) for one in samples if one.name == CIRCUIT_STATE.name}
    return {group: CIRCUIT_STATES[numbers.get(group, 0)] for group in CIRCUIT_STATE.labels["group"]}


def running() -> list[dict[str, Any]]:
    """The tasks at work, the longest first."""
    # Celery's set of these may change while it is looked through, and says so by failing.
    began = (request for request in list(state.requests.values()) if request.time_start is not None)
    return sorted(map(_shown, began), key=lambda one: -one["seconds"])


def _shown(request: Any) -> dict[str, Any]:
    return {
        "task": request.name,
        "task_id": request.id,
        "queue": queue_label((request.delivery_info or {}).get("routing_key")),
        "execution_id": _execution(request.request_dict),
        "seconds": round(time.time() - request.time_start, 1),
    }


def _execution(message: dict[str, Any]) -> str | None:
    """The execution of a batch or a callback. Other tasks are over soon, or have none."""
    about = message.get(FAN_IN) or message.get("kwargs")
    found = about.get("execution_id") if isinstance(about, dict) else None
    return str(found)[:_LONGEST_ID] if found else None
