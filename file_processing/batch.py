"""One batch: its files in turn, each remembered when it ends, so that a later delivery goes on where this one was."""

import time
from typing import Any

from file_processing.file import leave_to_retry, process_file
from shared.deadline import Deadline
from shared.errors import PayloadError, WorkerError
from shared.logging_utils import get_logger
from shared.models import Batch, BatchResult, FileData, FileHash, FileResult, Status, parse
from shared.orchestration import fan_in, is_ours, places
from shared.task import Call, HandBack, bury

log = get_logger(__name__)


def process(call: Call, batch: Batch) -> BatchResult:
    """Work through the files that have not ended, for at most a slice.

    Raises:
        HandBack: the slice is over; what has ended is remembered.
        TransientError: backend or state store are away; likewise. Not once the file's time is over: it then ends ERROR.
    """
    data, state, files = batch.file_data, call.state, places(call, batch)
    results = state.file_results(data.execution_id, list(files))
    for place, file in files.items():
        if place in results:
            continue
        if call.slice.over or call.stopping.is_set():
            raise HandBack(f"{len(results)} of {len(files)} files have ended")
        spent = time.time() - state.file_started(data.execution_id, place, time.time())
        deadline = call.deadline.beside(call.settings.file_deadline - spent, "the file")
        results[place] = _end_of(call, data, file, deadline)
        state.record_file(data.execution_id, place, results[place])
    return _end(call, data, files, results)


def _end_of(call: Call, data: FileData, file: FileHash, deadline: Deadline) -> FileResult:
    try:
        return process_file(call, data, file, deadline)
    except WorkerError as error:
        if leave_to_retry(error, deadline):
            raise
        log.warning("file_failed", file_number=file.file_number, reason=str(error))
        return FileResult(file=file.file_name, status=Status.ERROR, error=str(error))


def _end(call: Call, data: FileData, files: dict[str, FileHash], results: dict[str, FileResult]) -> BatchResult:
    result = fold([results[place] for place in files], data.organization_id)
    if is_ours(call):
        fan_in(call, result)
    elif files:
        call.state.forget_files(data.execution_id, list(files))
    return result


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
    """End a batch that cannot be worked through: files that have ended count as they did, the rest as failed."""
    reason = str(error) or type(error).__name__
    try:
        batch = parse(Batch, args[0] if args else kwargs.get("batch_data"))
    except PayloadError:
        bury(call, error, *args, **kwargs)
        if is_ours(call):
            fan_in(call, fold([], ""))
        return
    files = places(call, batch)
    ended = call.state.file_results(batch.file_data.execution_id, list(files))
    log.error("batch_abandoned", files=len(files) - len(ended), reason=reason)
    rest = {place: FileResult(file=file.file_name, status=Status.ERROR, error=reason) for place, file in files.items()}
    _end(call, batch.file_data, files, rest | ended)
