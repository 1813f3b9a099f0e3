"""What no task here can take is kept in a queue of our own, with its reason, instead of being dropped.

Celery would log such a message with its whole body, which may be somebody's document, and drop it.
"""

import logging
from collections.abc import Callable
from os import EX_CONFIG
from typing import Any

from amqp.exceptions import PreconditionFailed
from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer

from config.queue_routing import DEAD_LETTERS
from monitoring.prometheus_metrics import MESSAGES_DROPPED
from shared.logging_utils import get_logger
from shared.task_metrics import queue_label

log = get_logger(__name__)

_LONGEST_NAME = 200
_QUEUE_REMEDY = (
    "the queue exists as another type than CELERY_QUEUE_TYPE says: set that to the queue's type; or, to change it, "
    "stop all who publish to it or consume it, let it run empty, delete it, and start everybody with the new type"
)


class KeepingConsumer(Consumer):  # type: ignore[misc] # Celery ships no types
    """Celery's consumer, but for messages that are not a task of this process, and for how it meets its broker."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc] # Celery ships no types
        """Without the 56 queues and exchanges for delays, which it declares for quorum queues: `shared/delays.py`."""

        default_steps = [  # noqa: RUF012 # as in Celery
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    def start(self) -> None:
        """Consume until the end.

        Raises:
            WorkerShutdown: a queue exists, and not as CELERY_QUEUE_TYPE says.
        """
        try:
            super().start()
        except PreconditionFailed as refused:
            if "inequivalent arg" not in str(refused):
                raise
            log.critical("queue_refused", reason=str(refused), remedy=_QUEUE_REMEDY)
            raise WorkerShutdown(EX_CONFIG) from refused

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery's own, but for what ends the worker: kombu 5.7 closes a channel of a lost Redis in the wrong order.

        Closing a channel reads what was asked for and then puts back what is unacknowledged. Where the first fails,
        kombu forgets where the broker is, closes again, and dies of the second with an AttributeError, as does every
        later acknowledgement. Both have been tried once this is over, and nothing is left to be closed.
        """
        if self.task_consumer is not None and self.connection.transport.driver_type == "redis":
            for _ in ("what was asked for", "what is unacknowledged"):
                self.connection.maybe_close_channel(self.task_consumer.channel)
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's own, but for messages that break it: one of them would end the process, and then the next one's."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_or_keep(message: Any) -> Any:
            try:
                return handle(message)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                return self._keep(message, "protocol", f"it breaks Celery's protocol: {type(error).__name__}")

        return handle_or_keep

    def on_unknown_task(self, _body: Any, message: Any, _error: Exception) -> None:
        """A task that nobody here has."""
        self._keep(message, "unknown_task", "this worker has no task of that name")

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        """A message that is no task."""
        self._keep(message, "not_a_task", "it is not a task message")

    def on_invalid_task(self, _body: Any, message: Any, error: Exception) -> None:
        """A task message that breaks Celery's protocol."""
        self._keep(message, "invalid", f"it is not a valid task message: {type(error).__name__}")

    def on_decode_error(self, message: Any, error: Exception) -> None:
        """A body that is not what its headers say, or that is not JSON."""
        self._keep(message, "unreadable", f"its body cannot be read: {type(error).__name__}")

    def _keep(self, message: Any, kind: str, reason: str) -> None:
        headers = message.headers or {}
        queue = message.delivery_info.get("routing_key")
        if str(message.delivery_info.get("exchange", "")).endswith("pidbox"):
            # A word of another platform's workers among themselves, which all on this broker hear.
            message.ack_log_error(logging.getLogger(__name__), self.connection_errors)
            return
        task, task_id = (str(headers.get(name))[:_LONGEST_NAME] for name in ("task", "id"))
        log.error("message_kept", task=task, task_id=task_id, queue=queue, reason=reason)
        # A failure here leaves the message unacknowledged: the broker gives it out again.
        with self.app.producer_or_acquire() as producer:
            producer.publish(
                message.body,
                content_type=message.content_type or "application/octet-stream",
                content_encoding=message.content_encoding or "binary",
                headers={**headers, "kept_from": queue, "kept_because": reason},
                routing_key=DEAD_LETTERS,
                declare=[self.app.amqp.queues[DEAD_LETTERS]],
            )
        MESSAGES_DROPPED.inc(name="unknown", queue_name=queue_label(queue), reason=kind)
        message.ack_log_error(logging.getLogger(__name__), self.connection_errors)
