"""The tasks of the file_processing worker."""

from collections.abc import Mapping
from typing import Any

from file_processing.batch import abandon, process
from shared.call import Call, note_unknown
from shared.models import Batch, parse
from shared.orchestration import batch_work
from shared.task import task


def _about(args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> Mapping[str, Any]:
    batch = args[0] if args else kwargs.get("batch_data")
    data = batch.get("file_data") if isinstance(batch, Mapping) else None
    return {name: data.get(name) for name in ("execution_id", "organization_id")} if isinstance(data, Mapping) else {}


@task(
    "process_file_batch",
    "workflow_manager.workflow_v2.file_execution_tasks.process_file_batch",
    finalizer=abandon,
    sliced=True,
    work=batch_work,
    about=_about,
)
def process_file_batch(call: Call, /, batch_data: dict[str, Any], **unknown: Any) -> dict[str, Any]:
    """Work through the files of one batch. Payload and return: contract section 1.

    One file's failure is that file's; the batch goes on.
    """
    note_unknown(Batch, unknown)
    batch = parse(Batch, batch_data)
    return process(call, batch).model_dump(mode="json")
