"""From one execution to batches of files, and back: the plan, the fan-out and the fan-in.

Not Celery's chord: its header is lost with one message, it fires early on a redelivery, and it needs a result backend.
Ours is a set in the state store, keyed by (execution, batch): a result counts once however often it is delivered.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from config.workers import Orchestration
from shared.errors import OrchestrationError
from shared.execution_state import FanIn
from shared.logging_utils import get_logger
from shared.models import Batch, BatchResult, ExecuteRequest, FileData, FileHash
from shared.task import Call

T = TypeVar("T")

log = get_logger(__name__)

BATCH_TASK = "process_file_batch"
MOST_BATCHES = 100
_HEADER = "fan_in"


def plan(items: Sequence[T], limit: int) -> list[list[T]]:
    """Items in `min(limit, number of items)` batches, item i in batch i mod that number (contract section 1)."""
    count = min(max(1, limit), MOST_BATCHES, len(items))
    return [list(items[batch::count]) for batch in range(count)]


def fan_out(call: Call, request: ExecuteRequest, kind: Orchestration, files: Sequence[FileHash], limit: int) -> int:
    """Send the files in batches and register what they are folded into. With no files, send the callback at once.

    Doing it again sends the same batches again, which then find their files done.

    Returns: the number of batches.

    Raises:
        OrchestrationError: an earlier delivery has sent other batches, of a source that has changed since.
    """
    batches = plan(files, limit)
    if not batches:
        send_callback(call, kind, request, [])
        return 0
    opened = call.state.open_fan_in(
        request.execution_id,
        FanIn(
            batches=len(batches),
            files=len(files),
            callback_task=kind.callback_task,
            callback_queue=kind.callback_queue,
            callback_kwargs=_callback_kwargs(request),
            kick_off=call.task_id,
        ),
    )
    if (opened.batches, opened.files) != (len(batches), len(files)):
        raise OrchestrationError(
            f"the execution was started before, with {opened.files} files in {opened.batches} batches, "
            f"and not {len(files)} in {len(batches)}: its source has changed since"
        )
    for number, batch in enumerate(batches):
        call.send(
            BATCH_TASK,
            kind.batch_queue,
            [Batch(files=batch, file_data=_file_data(request)).message()],
            headers={_HEADER: {"execution_id": request.execution_id, "batch": number}},
        )
    return len(batches)


def places(call: Call, batch: Batch) -> dict[str, FileHash]:
    """The files of a batch by what names each within its execution, whoever delivers it and how often.

    A batch of ours is named by its number in the fan-in; one of others by its task's id.
    """
    number = call.headers[_HEADER]["batch"] if is_ours(call) else call.task_id
    return {f"{number}/{position}/{file.file_name}": file for position, file in enumerate(batch.files)}


def is_ours(call: Call) -> bool:
    """Whether a fan-in of ours waits for this batch. Others have a publisher who folds them himself, or nobody."""
    return _HEADER in call.headers


def fan_in(call: Call, result: BatchResult) -> None:
    """Record the batch that this call is, and send the callback if it was the last."""
    place = call.headers[_HEADER]
    execution_id = place["execution_id"]
    last = call.state.record_batch(execution_id, place["batch"], result)
    if last is not None:
        results = call.state.batch_results(execution_id)
        call.send(last.callback_task, last.callback_queue, [results], last.callback_kwargs)
        call.state.callback_sent(execution_id)
        log.info("fan_in_complete", execution_id=execution_id, batches=last.batches)


def send_callback(call: Call, kind: Orchestration, request: ExecuteRequest, results: list[dict[str, Any]]) -> None:
    """Send the callback of an execution that has no batches: one with no files, or one that failed before them."""
    call.send(kind.callback_task, kind.callback_queue, [results], _callback_kwargs(request))


def _callback_kwargs(request: ExecuteRequest) -> dict[str, Any]:
    return {
        "execution_id": request.execution_id,
        "organization_id": request.organization_id,
        "pipeline_id": request.options.pipeline_id,
    }


def _file_data(request: ExecuteRequest) -> FileData:
    options = request.options
    return FileData(
        workflow_id=request.workflow_id,
        execution_id=request.execution_id,
        organization_id=request.organization_id,
        **options.model_dump(include=set(FileData.model_fields) & set(type(options).model_fields)),
    )
