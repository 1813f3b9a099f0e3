"""Which task goes to which queue: one row per task name of the contract's section 1.

A task that goes to more than one queue, by the kind of its execution, is sent with its queue named
(`config.workers.Orchestration`); its row says where it goes when nobody says.
"""

from collections.abc import Mapping
from types import MappingProxyType

TASK_QUEUES: Mapping[str, str] = MappingProxyType(
    {
        "async_execute_bin": "celery",
        "async_execute_bin_api": "celery_api_deployments",
        "process_file_batch": "file_processing",
        "process_batch_callback": "file_processing_callback",
        "process_batch_callback_api": "api_file_processing_callback",
        "send_webhook_notification": "notifications",
        "process_notification_buffer": "notifications",
        "logs_consumer": "celery_log_task_queue",
        "process_log_history": "celery_periodic_logs",
        "scheduler.tasks.execute_pipeline_task": "celery",
        # Names that older publishers still send.
        "workflow_manager.workflow_v2.file_execution_tasks.process_file_batch": "file_processing",
        "workflow_manager.workflow_v2.file_execution_tasks.process_batch_callback": "file_processing_callback",
        # Ours alone: what became of a webhook, where the backend could not be told at once.
        "workers.mark_notifications": "notifications",
        # Ours alone: what the schedule sends, and no publisher of the platform's.
        "workers.release_expired_reservations": "celery",
    }
)


# Where messages are kept that no task can take. Nothing consumes it: its messages are for people.
DEAD_LETTERS = "workers_dead_letters"


def task_routes() -> dict[str, dict[str, str]]:
    """The table in the shape of Celery's `task_routes`."""
    return {task: {"queue": queue} for task, queue in TASK_QUEUES.items()}
