"""Which task goes to which queue, and how urgent each queue is: a row for every name of the contract's section 1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Priority(StrEnum):
    """How long work may wait, the most urgent first."""

    HIGH = "high"  # somebody waits for it: seconds
    DEFAULT = "default"
    LOW = "low"  # it takes minutes itself


# Where the steps of workflows go, by their class. Ours alone.
WORKFLOW_QUEUES: Mapping[Priority, str] = MappingProxyType(
    {priority: f"workers_workflow_{priority}" for priority in Priority}
)

# Every queue that the contract names, and ours, with its class.
QUEUES: Mapping[str, Priority] = MappingProxyType(
    {
        **{queue: priority for priority, queue in WORKFLOW_QUEUES.items()},
        "celery_api_deployments": Priority.HIGH,
        "file_processing_callback": Priority.HIGH,
        "api_file_processing_callback": Priority.HIGH,
        "notifications": Priority.HIGH,
        "notifications_webhook": Priority.HIGH,
        "notifications_priority": Priority.HIGH,
        "celery": Priority.DEFAULT,
        "scheduler": Priority.DEFAULT,
        "celery_log_task_queue": Priority.DEFAULT,
        "celery_periodic_logs": Priority.DEFAULT,
        "file_processing": Priority.LOW,
        "api_file_processing": Priority.LOW,
    }
)

# Where messages are kept that no task can take. Nothing consumes it: its messages are for people.
DEAD_LETTERS = "workers_dead_letters"


@dataclass(frozen=True, slots=True)
class Route:
    """One rule.

    Attributes:
        task: a task's name, or `prefix.*` for all that begin so; an exact name wins, then the longest prefix.
        queue: where it goes when its sender names no queue.
        others: where it is sent besides, its queue named (`config.workers.Orchestration` says when).
    """

    task: str
    queue: str
    others: tuple[str, ...] = ()

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that its messages come on."""
        return (self.queue, *self.others)

    def matches(self, task: str) -> bool:
        """Whether the rule is for that task."""
        return task.startswith(self.task[:-1]) if self.task.endswith(".*") else task == self.task


ROUTES: tuple[Route, ...] = (
    Route("async_execute_bin", "celery", ("celery_api_deployments",)),
    Route("async_execute_bin_api", "celery_api_deployments"),
    Route("scheduler.tasks.execute_pipeline_task", "celery", ("scheduler",)),
    Route("process_file_batch", "file_processing", ("api_file_processing",)),
    Route("process_batch_callback", "file_processing_callback"),
    Route("process_batch_callback_api", "api_file_processing_callback"),
    Route("send_webhook_notification", "notifications", ("notifications_webhook", "notifications_priority")),
    Route("logs_consumer", "celery_log_task_queue"),
    Route("process_log_history", "celery_periodic_logs"),
    Route("process_notification_buffer", "notifications"),
    # Names that older publishers still send.
    Route("workflow_manager.workflow_v2.file_execution_tasks.process_file_batch", "file_processing"),
    Route("workflow_manager.workflow_v2.file_execution_tasks.process_batch_callback", "file_processing_callback"),
    # Ours alone: what became of a webhook, where the backend could not be told at once.
    Route("workers.mark_notifications", "notifications"),
    # Ours alone: what the schedule sends, and no publisher of the platform's.
    Route("workers.release_expired_reservations", "celery"),
    # Likewise: the steps of workflows.
    Route(
        "workers.workflow_step",
        WORKFLOW_QUEUES[Priority.DEFAULT],
        (WORKFLOW_QUEUES[Priority.HIGH], WORKFLOW_QUEUES[Priority.LOW]),
    ),
)


def route_of(task: str, routes: Sequence[Route] = ROUTES) -> Route | None:
    """The rule for a task: the one of its exact name, else that of the longest prefix; None if there is none."""
    found = [route for route in routes if route.matches(task)]
    return max(found, key=lambda route: (route.task == task, len(route.task)), default=None)


def task_routes() -> dict[str, dict[str, str]]:
    """The rules as Celery's `task_routes`, which takes an exact name first, then patterns in this order."""
    longest_first = sorted(ROUTES, key=lambda route: len(route.task), reverse=True)
    return {route.task: {"queue": route.queue} for route in longest_first}
