"""One batch: its files in turn, each remembered when it ends, so that a later delivery goes on where this one was."""

import time
from collections.abc import Mapping
from typing import Any

from file_processing.file import Limits, process_file
from shared.deadline import Deadline
from shared.errors import WorkerError
from shared.logging_utils import get_logger
from shared.models import Batch, BatchResult, FileData, FileHash, FileResult, Status, parse
from shared.orchestration import batch_id, fan_in
from shared.task import Call, HandBack

log = get_logger(__name__)


def process(call: Call, batch: Batch) -> BatchResult:
    """Work through the files that have not ended, for at most a slice.

    Raises:
        HandBack: the slice is over; what has ended is remembered.
        TransientError: backend or state store are away; likewise. Not on the last attempt: the file then ends ERROR.
    """
    data, state, number = batch.file_data, call.state, batch_id(call)
    slice_ = Deadline.after(call.settings.batch_slice, "the slice of a batch")
    places = {f"{number}/{position}": file for position, file in enumerate(batch.files)}
    results = state.file_results(data.execution_id, list(places))
    for place, file in places.items():
        if place in results:
            continue
        if slice_.over:
            raise HandBack(f"{len(results)} of {len(places)} files have ended")
        spent = time.time() - state.file_started(data.execution_id, place, time.time())
        limits = Limits(slice_, Deadline.after(call.settings.file_deadline - spent, "the file"))
        results[place] = _end_of(call, data, file, limits)
        state.record_file(data.execution_id, place, results[place])
    result = fold([results[place] for place in places], data.organization_id)
    fan_in(call, result)
    return result


def _end_of(call: Call, data: FileData, file: FileHash, limits: Limits) -> FileResult:
    try:
        return process_file(call, data, file, limits)
    except WorkerError as error:
        if error.retry and not call.last_attempt:
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
