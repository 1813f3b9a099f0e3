"""Celery's events, sent within bounds: its heartbeats try for ever, in the loop's thread, while a broker is frozen."""

from typing import Any

from celery.app import events
from celery.events.dispatcher import EventDispatcher


class Dispatcher(EventDispatcher):  # type: ignore[misc] # Celery ships no types
    """Celery's own. What is not sent goes with the next connection."""

    def _publish(self, event: Any, producer: Any, routing_key: str, *args: Any, **options: Any) -> None:
        bounded = {"retry_policy": self.app.conf.task_publish_retry_policy}
        super()._publish(event, producer, routing_key, *args, **options | bounded)


class Events(events.Events):  # type: ignore[misc] # Celery ships no types
    """Where an application finds it."""

    dispatcher_cls = "shared.events:Dispatcher"
