"""What Celery does with messages before and after a task of ours runs, counted by its signals; and when each was sent.

https://docs.celeryq.dev/en/stable/userguide/signals.html
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from celery import signals

from config.queue_routing import DEAD_LETTERS, QUEUES, ROUTES
from monitoring.prometheus_metrics import (
    CIRCUIT_STATE,
    MESSAGES_DROPPED,
    TASK_FAILED,
    TASK_RECEIVED,
    TASK_RETRIED,
    TASK_REVOKED,
    TASK_SENT,
    TASK_STARTED,
)

SENT_AT = "sent_at"  # header: when the message was, or will be, there to be taken; seconds since the epoch
_LARGEST = 1e15  # beyond any time or count of ours
_BROKERS = "timestamp_in_ms"  # RabbitMQ writes it, if it is told to: https://www.rabbitmq.com/docs/message-interceptors


def queue_label(routing_key: object) -> str:
    """The queue of a message as a label: one of the routing table, `delayed` for one that hands on, or `unknown`."""
    if routing_key in QUEUES or routing_key == DEAD_LETTERS:
        return str(routing_key)
    return "delayed" if str(routing_key).startswith("workers_delay_") else "unknown"


def number(headers: Mapping[str, Any], name: str, otherwise: float) -> float:
    """A number that a message's header has, or what stands for one: who sends is not trusted to have written any."""
    value = headers.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return otherwise
    return float(value)


def waited(headers: Mapping[str, Any], now: float) -> float | None:
    """Seconds for which a message was there to be taken, where somebody has written since when."""
    since = number(headers, SENT_AT, 0.0) or number(headers, _BROKERS, 0.0) / 1_000
    return max(0.0, now - since) if since > 0 else None


def begin(queues: Iterable[str]) -> None:
    """Show at 0 what these queues' tasks may come to, or the first failure would be no increase to Prometheus."""
    for group in CIRCUIT_STATE.labels["group"]:
        CIRCUIT_STATE.set(0, group=group)
    for route in ROUTES:
        for queue in set(queues).intersection(route.queues):
            task = {"name": route.task, "queue_name": queue}
            TASK_STARTED.inc(0, **task)
            TASK_RETRIED.inc(0, **task)
            TASK_FAILED.inc(0, **task, exception="")  # to Prometheus, an empty label is none
            for reason in ("failed", "unfinished"):
                MESSAGES_DROPPED.inc(0, **task, reason=reason)


def install() -> None:
    """Count, from now on, what this process sends and takes."""
    signals.before_task_publish.connect(_date, weak=False)
    signals.after_task_publish.connect(_sent, weak=False)
    signals.task_received.connect(_received, weak=False)
    signals.task_revoked.connect(_revoked, weak=False)


def _date(headers: dict[str, Any], **_: Any) -> None:
    # One that is sent for later has its time already.
    headers[SENT_AT] = max(time.time(), number(headers, SENT_AT, 0.0))


def _sent(sender: str, routing_key: str, **_: Any) -> None:
    TASK_SENT.inc(name=sender, queue_name=queue_label(routing_key))


def _received(request: Any, **_: Any) -> None:
    TASK_RECEIVED.inc(name=request.name, queue_name=queue_label(request.delivery_info.get("routing_key")))


def _revoked(sender: Any, request: Any, **_: Any) -> None:
    task = {"name": sender.name, "queue_name": queue_label((request.delivery_info or {}).get("routing_key"))}
    TASK_REVOKED.inc(**task)
    MESSAGES_DROPPED.inc(**task, reason="revoked")
