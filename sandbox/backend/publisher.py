"""Sends Celery messages as the platform's backend does.

The backend declares every queue as Celery does by default: classic, durable, a direct exchange of the same name. It is
a program of its own and knows nothing of the workers' code, so neither does this.
"""

from __future__ import annotations

import functools
import uuid
from typing import Any

from celery import Celery
from celery.exceptions import CeleryError
from django.conf import settings
from kombu.exceptions import KombuError

EXECUTE = "async_execute_bin"
PROCESS_BATCH = "process_file_batch"
NOTIFY = "send_webhook_notification"

API_QUEUE = "celery_api_deployments"
GENERAL_QUEUE = "celery"
NOTIFICATION_QUEUE = "notifications"

# Together they bound a send to a broker that is away to a few seconds: an HTTP request is waiting for it.
_CONNECT_SECONDS = 3.0
_RETRIES = {"max_retries": 2, "interval_start": 0.2, "interval_step": 0.3, "interval_max": 0.5}


class PublishError(Exception):
    """The broker did not take the message."""


@functools.cache
def _celery() -> Celery:
    """Made on first use, so after gunicorn's fork."""
    url = settings.SANDBOX.broker_url
    if url is None:
        raise PublishError("CELERY_BROKER_URL is not set")
    app = Celery("sandbox", broker=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_connection_timeout=_CONNECT_SECONDS,
        task_publish_retry_policy=_RETRIES,
        broker_transport_options=_transport(url),
    )
    return app


def _transport(url: str) -> dict[str, Any]:
    if url.startswith("redis"):
        seconds = _CONNECT_SECONDS
        return {"socket_connect_timeout": seconds, "socket_timeout": seconds, "retry_on_timeout": False}
    # Without confirmation a message that RabbitMQ dropped looks sent.
    return {"confirm_publish": True} if url.startswith(("amqp", "pyamqp")) else {}


def publish(task: str, queue: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> str:
    """Send one message and return its task id; PublishError when the broker does not take it."""
    task_id = str(uuid.uuid4())
    try:
        _celery().send_task(task, args=args, kwargs=kwargs or {}, queue=queue, task_id=task_id)
    except (KombuError, CeleryError, OSError, *_transport_errors()) as error:
        raise PublishError(f"{task} could not be sent to {queue}: {type(error).__name__}: {error}") from error
    return task_id


@functools.cache
def _transport_errors() -> tuple[type[Exception], ...]:
    """What the transport raises of its own: `redis.ConnectionError` is no OSError."""
    connection = _celery().connection_for_write()
    errors: tuple[type[Exception], ...] = connection.connection_errors + connection.channel_errors
    return errors
