"""Where the contract's section 1 has each task: what the routing table is held against.

A table of its own, since one that is derived from the routes agrees with every mistake in them. A test holds it against
CONTRACT.md.
"""

from collections.abc import Mapping
from types import MappingProxyType

CONTRACT_ROUTES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "async_execute_bin": frozenset({"celery_api_deployments", "celery"}),
        "async_execute_bin_api": frozenset({"celery_api_deployments"}),
        "scheduler.tasks.execute_pipeline_task": frozenset({"celery", "scheduler"}),
        "process_file_batch": frozenset({"api_file_processing", "file_processing"}),
        "process_batch_callback_api": frozenset({"api_file_processing_callback"}),
        "process_batch_callback": frozenset({"file_processing_callback"}),
        "send_webhook_notification": frozenset({"notifications"}),
        "logs_consumer": frozenset({"celery_log_task_queue"}),
        "workflow_manager.workflow_v2.file_execution_tasks.process_file_batch": frozenset({"file_processing"}),
        "workflow_manager.workflow_v2.file_execution_tasks.process_batch_callback": frozenset(
            {"file_processing_callback"}
        ),
    }
)
