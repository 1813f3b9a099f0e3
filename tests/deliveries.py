"""Messages that reach the real tasks, under the real seam, without a broker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery.app.trace import build_tracer

from shared.call import WorkerApp


@dataclass
class Message:
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, Any]
    queue: str
    task_id: str


def sent(number: int, task: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Message:
    """The message that `send_task` of these arguments publishes; its number names it where nothing else does."""
    task_id = options.get("task_id") or f"task-{number}"
    headers = dict(options.get("headers") or {})
    return Message(task, list(args or []), dict(kwargs or {}), headers, options["queue"], task_id)


class Deliveries:
    """Runs tasks of an application as its worker would."""

    def __init__(self, app: WorkerApp) -> None:
        self._tracers = {name: build_tracer(name, app.tasks[name], app=app) for name in app.tasks}

    def deliver(self, message: Message) -> None:
        request = {
            "id": message.task_id,
            "task": message.task,
            "args": message.args,
            "kwargs": message.kwargs,
            "headers": dict(message.headers),
            "delivery_info": {"routing_key": message.queue, "exchange": ""},
            "retries": 0,
            "is_eager": False,
        }
        self._tracers[message.task](message.task_id, message.args, message.kwargs, request)
