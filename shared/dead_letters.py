"""What no task here can take is kept in a queue of our own, with its reason, instead of being dropped.

Celery would log such a message with its whole body, which may be somebody's document, and drop it.
"""

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from kombu.entity import Exchange, Queue

from config.queue_routing import DEAD_LETTERS
from shared.logging_utils import get_logger

log = get_logger(__name__)


class KeepingConsumer(Consumer):  # type: ignore[misc] # Celery ships no types
    """Celery's consumer, but for messages that are not a task of this process."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's own, but for messages that break it: one of them would end the process, and then the next one's."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_or_keep(message: Any) -> Any:
            try:
                return handle(message)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                return self._keep(message, f"it breaks Celery's protocol: {type(error).__name__}")

        return handle_or_keep

    def on_unknown_task(self, _body: Any, message: Any, _error: Exception) -> None:
        """A task that nobody here has."""
        self._keep(message, "this worker has no task of that name")

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        """A message that is no task."""
        self._keep(message, "it is not a task message")

    def on_invalid_task(self, _body: Any, message: Any, error: Exception) -> None:
        """A task message that breaks Celery's protocol."""
        self._keep(message, f"it is not a valid task message: {type(error).__name__}")

    def on_decode_error(self, message: Any, error: Exception) -> None:
        """A body that is not what its headers say, or that is not JSON."""
        self._keep(message, f"its body cannot be read: {type(error).__name__}")

    def _keep(self, message: Any, reason: str) -> None:
        headers = message.headers or {}
        queue = message.delivery_info.get("routing_key")
        log.error("message_kept", task=headers.get("task"), task_id=headers.get("id"), queue=queue, reason=reason)
        # A failure here leaves the message unacknowledged: the broker gives it out again.
        with self.app.producer_or_acquire() as producer:
            producer.publish(
                message.body,
                content_type=message.content_type or "application/octet-stream",
                content_encoding=message.content_encoding or "binary",
                headers={**headers, "kept_from": queue, "kept_because": reason},
                routing_key=DEAD_LETTERS,
                declare=[Queue(DEAD_LETTERS, Exchange(DEAD_LETTERS, "direct"), DEAD_LETTERS)],
            )
        message.ack_log_error(logging.getLogger(__name__), self.connection_errors)
