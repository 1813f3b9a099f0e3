"""The tasks of the file_processing worker."""

from typing import Any

from file_processing.batch import abandon, process
from shared.call import Call, note_unknown
from shared.logging_utils import bind_context
from shared.models import Batch, parse
from shared.orchestration import batch_work
from shared.task import task


@task(
    "process_file_batch",
    "workflow_manager.workflow_v2.file_execution_tasks.process_file_batch",
    finalizer=abandon,
    sliced=True,
    work=batch_work,
)
def process_file_batch(call: Call, /, batch_data: dict[str, Any], **unknown: Any) -> dict[str, Any]:
    """Work through the files of one batch. Payload and return: contract section 1.

    One file's failure is that file's; the batch goes on.
    """
    note_unknown(Batch, unknown)
    batch = parse(Batch, batch_data)
    bind_context(execution_id=batch.file_data.execution_id, organization_id=batch.file_data.organization_id)
    return process(call, batch).model_dump(mode="json")
