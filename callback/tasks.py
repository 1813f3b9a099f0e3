"""The tasks of the callback worker."""

from typing import Any

from callback.finalize import finalize
from shared.logging_utils import bind_context
from shared.models import Callback, parse
from shared.task import Call, note_unknown, task


@task(
    "process_batch_callback",
    "process_batch_callback_api",
    "workflow_manager.workflow_v2.file_execution_tasks.process_batch_callback",
)
def process_batch_callback(call: Call, /, results: list[Any] | None = None, **kwargs: Any) -> dict[str, Any]:
    """End an execution from the results of its batches. Payload: contract section 1.

    Nobody comes after the callback, so it is patient.
    """
    note_unknown(Callback, kwargs)
    callback = parse(Callback, {**kwargs, "results": results or []})
    bind_context(execution_id=callback.execution_id, organization_id=callback.organization_id)
    return finalize(call, callback)
