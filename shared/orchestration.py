"""From one execution to batches of files, and back: the plan, the fan-out and the fan-in.

Not Celery's chord: its header is lost with one message, it fires early on a redelivery, and it needs a result backend.
Ours is a barrier in the state store, keyed by (execution, batch): a result counts once however often it is delivered.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from config.workers import Orchestration, orchestration_of
from shared.call import Call
from shared.claims import Claim, message_claim
from shared.execution_state import Run
from shared.logging_utils import get_logger
from shared.models import Batch, BatchResult, ExecuteRequest, FileData, FileHash, FileResult, Status, parse

T = TypeVar("T")

log = get_logger(__name__)

BATCH_TASK = "process_file_batch"
MOST_BATCHES = 100
FAN_IN = "fan_in"  # header: which batch of which execution this is
REAPED = "reaped"  # header of a callback that the reaper sends: why
_CREDENTIALS = {"files": {"__all__": {"connector_metadata"}}}


def plan(items: Sequence[T], limit: int) -> list[list[T]]:
    """Items in `min(limit, number of items)` batches, item i in batch i mod that number (contract section 1)."""
    count = min(max(1, limit), MOST_BATCHES, len(items))
    return [list(items[batch::count]) for batch in range(count)]


def fan_out(call: Call, request: ExecuteRequest, kind: Orchestration, files: Sequence[FileHash], limit: int) -> int:
    """Send the files in batches, and keep each until its result is there. With no files, send the callback at once.

    Returns: the number of batches.
    """
    data = _file_data(request)
    batches = [Batch(files=batch, file_data=data) for batch in plan(files, limit)]
    # The credentials of the source go with the messages, as the contract has it, and are kept nowhere else.
    kept = {number: batch.model_dump_json(exclude=_CREDENTIALS) for number, batch in enumerate(batches)}
    call.state.open_fan_in(request.execution_id, len(batches), len(files), kept)
    if not batches:
        finish(call, run_of(request, kind))
    for number, batch in enumerate(batches):
        _send_batch(call, kind, number, batch.message(), (len(batches), len(files)))
    return len(batches)


def send_again(call: Call, run: Run) -> list[int]:
    """Send every batch again that has no result and that nobody is at. A copy too many is found to be one.

    Returns: their numbers.
    """
    kind = orchestration_of(is_api=run.is_api)
    sent = []
    for number, kept in call.state.plan(run.execution_id).items():
        if not call.claims.alive(batch_claim(call, run.execution_id, number)):
            message = Batch.model_validate(kept).message()
            _send_batch(call, kind, number, message, (run.batches or 0, run.files))
            sent.append(number)
    return sent


def _send_batch(call: Call, kind: Orchestration, number: int, message: dict[str, Any], of: tuple[int, int]) -> None:
    data = message["file_data"]
    header = {"execution_id": data["execution_id"], "batch": number, "batches": of[0], "files": of[1]}
    call.send(BATCH_TASK, kind.batch_queue, [message], headers={FAN_IN: header | {"is_api": kind.is_api}})


def batch_work(call: Call, /, *_args: Any, **_kwargs: Any) -> Claim:
    """The work that a batch is: one of ours by its number, whoever delivers it; another's by its message."""
    if not is_ours(call):
        return message_claim(call.task_id)
    header = call.headers[FAN_IN]
    return batch_claim(call, header["execution_id"], header["batch"])


def batch_claim(call: Call, execution_id: str, batch: int) -> Claim:
    """The work that a batch of ours is."""
    return call.state.claim(execution_id, batch_work_name(batch))


def batch_work_name(batch: int) -> str:
    """What a batch is called among the pieces of its execution's work."""
    return f"batch:{batch}"


def places(call: Call, batch: Batch) -> dict[str, FileHash]:
    """The files of a batch by what names each within its execution, whoever delivers it and how often."""
    number = call.headers[FAN_IN]["batch"] if is_ours(call) else call.task_id
    return {place(number, at, file): file for at, file in enumerate(batch.files)}


def place(batch: int | str, at: int, file: FileHash) -> str:
    """What names a file within its execution: its batch and its number there."""
    return f"{batch}/{at}/{file.file_name}"


def planned(plan: Mapping[int, Any]) -> dict[str, FileHash]:
    """The files of these batches of a plan, by their places."""
    batches = {number: parse(Batch, kept) for number, kept in plan.items()}
    return {place(number, at, file): file for number, batch in batches.items() for at, file in enumerate(batch.files)}


def is_ours(call: Call) -> bool:
    """Whether a fan-in of ours waits for this batch. Others have a publisher who folds them himself, or nobody."""
    header = call.headers.get(FAN_IN)
    return isinstance(header, Mapping) and {"execution_id", "batch", "batches", "files"} <= header.keys()


def make_known(call: Call, data: FileData) -> None:
    """Register the execution of a batch again, after the state store has lost it: the message says what to know."""
    header: Mapping[str, Any] = call.headers[FAN_IN]
    run = Run(
        data.execution_id, data.organization_id, data.workflow_id, data.pipeline_id, is_api=bool(header.get("is_api"))
    )
    call.state.register(run)
    call.state.open_fan_in(data.execution_id, int(header["batches"]), int(header["files"]), {})
    log.warning("execution_registered_again", batch=header["batch"])


def fold(results: Sequence[FileResult], organization_id: str) -> BatchResult:
    """The batch's result from its files' (contract section 1)."""
    failed = {result.file: result.error or "" for result in results if result.status is not Status.COMPLETED}
    successful = sum(result.status is Status.COMPLETED for result in results)
    return BatchResult(
        total_files=len(results),
        successful_files=successful,
        failed_files=len(results) - successful,
        execution_time=round(sum(result.execution_time for result in results), 3),
        organization_id=organization_id,
        file_results=list(results),
        errors=failed,
        skipped_already_completed=sum(result.skipped for result in results),
    )


def fan_in(call: Call, result: BatchResult) -> None:
    """Record the batch that this call is, and send the callback if it was the last."""
    execution_id = str(call.headers[FAN_IN]["execution_id"])
    if call.state.record_batch(execution_id, call.headers[FAN_IN]["batch"], result):
        known = call.state.known(execution_id)
        if known.run is not None:
            _send_callback(call, known.run, known.results)


def finish(call: Call, run: Run, reaped: str | None = None) -> None:
    """Send the callback of an execution, with what its batches recorded.

    Args:
        call: the delivery, or the reaper's round, in which that is done.
        run: what is known of the execution.
        reaped: why the reaper does it, if so: the backend's rows decide then.
    """
    _send_callback(call, run, call.state.known(run.execution_id).results, reaped)


def _send_callback(call: Call, run: Run, recorded: Mapping[int, dict[str, Any]], reaped: str | None = None) -> None:
    results = list(recorded.values())
    headers = {REAPED: reaped} if reaped else {}
    kind = orchestration_of(is_api=run.is_api)
    kwargs = {"execution_id": run.execution_id, "organization_id": run.organization_id, "pipeline_id": run.pipeline_id}
    call.send(kind.callback_task, kind.callback_queue, [results], kwargs, headers=headers)
    call.state.callback_sent(run.execution_id)
    log.info("callback_sent", batches=len(results), reaped=reaped)


def run_of(request: ExecuteRequest, kind: Orchestration) -> Run:
    """What is known of an execution before its files are."""
    return Run(
        request.execution_id,
        request.organization_id,
        request.workflow_id,
        request.options.pipeline_id,
        kind.is_api,
        files=len(request.files),
    )


def _file_data(request: ExecuteRequest) -> FileData:
    options = request.options
    return FileData(
        workflow_id=request.workflow_id,
        execution_id=request.execution_id,
        organization_id=request.organization_id,
        **options.model_dump(include=set(FileData.model_fields) & set(type(options).model_fields)),
    )
