"""One batch: its files in turn, each remembered when it ends, so that a later delivery goes on where this one was."""

import time
from typing import Any

from file_processing.file import FileJob, leave_to_retry, process_file
from monitoring.prometheus_metrics import BATCHES, FILES
from shared.backend_models import Execution
from shared.call import Call, bury
from shared.errors import (
    AlreadyDone,
    BackendUnavailableError,
    HandBack,
    NotFoundError,
    PayloadError,
    StateStoreError,
    WorkerError,
)
from shared.execution_state import Run
from shared.logging_utils import get_logger, inner_context
from shared.models import Batch, BatchResult, Context, FileData, FileHash, FileResult, Status, parse
from shared.orchestration import fan_in, fold, is_ours, make_known, places

log = get_logger(__name__)


def process(call: Call, batch: Batch, condemned: str | None = None) -> BatchResult:
    """Work through the files that have not ended, for at most a slice.

    Args:
        call: this delivery.
        batch: the files.
        condemned: why no file of it may run any more, if so: what has not ended is an error then.

    Raises:
        HandBack: the slice is over; what has ended is remembered.
        AlreadyDone: the execution has ended without this batch.
        TransientError: backend or state store are away; likewise. Not once the file's time is over: it then ends ERROR.
    """
    data, state, files = batch.file_data, call.state, places(call, batch)
    run, kept, results = state.at_hand(data.execution_id, data.organization_id, list(files))
    context = _context(call, data, run, kept)
    for place, file in files.items():
        if place in results:
            continue
        if call.slice.over or call.stopping.is_set():
            raise HandBack(f"{len(results)} of {len(files)} files have ended")
        begun = state.begin_file(data.execution_id, place, time.time())
        stopped = begun.stopped
        if begun.ask:
            stopped = _stopped(call, data)
            begun = begun if stopped else state.begin_file(data.execution_id, place, time.time())
        if stopped is not None:
            FILES.inc(outcome="stopped")
            results[place] = FileResult(file=file.file_name, status=Status.STOPPED, error=f"the execution is {stopped}")
            continue
        left = call.settings.file_deadline - (time.time() - begun.started)
        deadline = call.deadline.beside(left, "the file")
        with inner_context(file_number=file.file_number):
            results[place] = _end_of(FileJob(call, context, data, file, place, deadline, condemned))
            state.record_file(data.execution_id, place, results[place])
            if len(results) < len(files):  # else its result follows at once
                call.progressed()
    return _end(call, data, files, results)


def _context(call: Call, data: FileData, run: Run | None, kept: Context | None) -> Context:
    """What all batches of the execution need, asked of the backend where the state store has it no more.

    A batch of ours whose execution is not known is of one that the state store has lost: it is registered again.
    """
    lost = is_ours(call) and (run is None or run.batches is None)
    if kept is not None and not lost:
        return kept
    execution = _execution(call, data)
    if lost:
        if execution.execution.is_terminal:
            raise AlreadyDone(f"the execution is {execution.execution.status} already")
        make_known(call, data)
    context = Context(
        execution_id=data.execution_id,
        workflow_id=data.workflow_id,
        organization_id=data.organization_id,
        pipeline_id=data.pipeline_id,
        is_api=execution.source_config.is_api,
    )
    call.state.keep_context(context)
    return context


def _execution(call: Call, data: FileData) -> Execution:
    try:
        return call.backend(data.organization_id).execution(data.execution_id)
    except NotFoundError as deleted:
        call.state.forget(data.execution_id)
        raise AlreadyDone("the execution was deleted") from deleted


def _stopped(call: Call, data: FileData) -> str | None:
    """The terminal status of the execution, if the backend calls it that: somebody has stopped it.

    A backend that cannot be asked stops nothing.
    """
    try:
        execution = _execution(call, data).execution
    except BackendUnavailableError:
        return None
    if not execution.is_terminal:
        return None
    log.warning("execution_stopped", status=execution.status)
    call.state.stop(data.execution_id, execution.status)
    return execution.status


def _end_of(job: FileJob) -> FileResult:
    try:
        return process_file(job)
    except StateStoreError:
        raise  # it is not the file's, however late it is
    except WorkerError as error:
        if leave_to_retry(error, job.deadline):
            raise
        FILES.inc(outcome="failed")
        log.warning("file_failed", reason=str(error))
        return FileResult(file=job.file.file_name, status=Status.ERROR, error=str(error))


def _end(call: Call, data: FileData, files: dict[str, FileHash], results: dict[str, FileResult]) -> BatchResult:
    result = fold([results[place] for place in files], data.organization_id)
    BATCHES.inc(outcome=_outcome(result))
    if is_ours(call):
        fan_in(call, result)
    elif files:
        call.state.forget_files(data.execution_id, list(files))
    return result


def _outcome(result: BatchResult) -> str:
    if not result.total_files:
        return "empty"
    if not result.failed_files:
        return "succeeded"
    return "partial" if result.successful_files else "failed"


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
    log.error("batch_abandoned", files=len(batch.files), reason=reason)
    try:
        process(call, batch, condemned=reason)
    except AlreadyDone:
        log.info("batch_without_execution", reason=reason)
