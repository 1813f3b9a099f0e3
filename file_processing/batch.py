"""One batch: its files in turn, each remembered when it ends, so that a later delivery goes on where this one was."""

from collections.abc import Mapping
from typing import Any

from file_processing.file import process_file
from shared.deadline import Deadline
from shared.errors import TransientError, WorkerError
from shared.logging_utils import get_logger
from shared.models import Batch, BatchResult, FileHash, FileResult, Status, parse
from shared.orchestration import batch_id, fan_in
from shared.task import Call, HandBack

log = get_logger(__name__)


def process(call: Call, batch: Batch) -> BatchResult:
    """Work through the files that have not ended, for at most a slice.

    Raises:
        HandBack: the slice is over; what has ended is remembered.
        TransientError: backend or state store are away; likewise. Not on the last attempt: the file then ends ERROR.
    """
    data, number = batch.file_data, batch_id(call)
    slice_ = Deadline.after(call.settings.batch_slice, "the slice of a batch")
    results = call.state.file_results(data.execution_id, number, len(batch.files))
    for position, file in enumerate(batch.files):
        if position in results:
            continue
        if slice_.over:
            raise HandBack(f"{len(results)} of {len(batch.files)} files have ended")
        results[position] = _end_of(call, batch, file, slice_)
        call.state.record_file(data.execution_id, number, position, results[position])
    result = fold([results[position] for position in sorted(results)], data.organization_id)
    fan_in(call, result)
    return result


def _end_of(call: Call, batch: Batch, file: FileHash, slice_: Deadline) -> FileResult:
    try:
        return process_file(call, batch.file_data, file, slice_)
    except WorkerError as error:
        if isinstance(error, TransientError) and not call.last_attempt:
            raise
        log.warning("file_failed", file_number=file.file_number, reason=str(error))
        return FileResult(file=file.file_name, status=Status.ERROR, error=str(error))


def fold(results: list[FileResult], organization_id: str) -> BatchResult:
    """The batch's result from its files' (contract section 1)."""
    failed = {result.file: result.error or "" for result in results if result.status is not Status.COMPLETED}
    successful = sum(result.status is Status.COMPLETED for result in results)
    return BatchResult(
        total_files=len(results),
        successful_files=successful,
        failed_files=len(results) - successful,
        execution_time=round(sum(result.execution_time for result in results), 3),
        organization_id=organization_id,
        file_results=results,
        errors=failed,
        skipped_already_completed=sum(result.skipped for result in results),
    )


def abandon(call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None:
    """End a batch that cannot be worked through: its files count as failed, and the execution goes on."""
    payload = args[0] if args else kwargs.get("batch_data")
    try:
        batch = parse(Batch, payload)
    except WorkerError:
        files = payload.get("files") if isinstance(payload, Mapping) else None
        names = [str(number) for number in range(len(files))] if isinstance(files, list) else []
        organization_id = ""
    else:
        names = [file.file_name for file in batch.files]
        organization_id = batch.file_data.organization_id
    reason = str(error) or type(error).__name__
    log.error("batch_abandoned", files=len(names), reason=reason)
    fan_in(
        call,
        fold([FileResult(file=name, status=Status.ERROR, error=reason) for name in names], organization_id),
    )
