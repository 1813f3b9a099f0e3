"""One file through the backend's tools: row, execution, result, status (contract sections 3 and 4).

The order makes each effect happen once: the run is keyed by the file's row, the result is pushed under a claim, and
the status comes last, so that a delivery that finds a terminal status knows everything before it is done.
"""

import random
import time
from typing import Any

from monitoring.prometheus_metrics import FILES
from shared.backend_models import FileExecution, FileRun
from shared.deadline import Deadline
from shared.errors import BackendBusyError, NotFoundError, WorkerError
from shared.logging_utils import get_logger
from shared.models import TERMINAL, FileData, FileHash, FileResult, Status
from shared.task import Call, HandBack

log = get_logger(__name__)

_SHORTEST_POLL = 0.1
_LONGEST_POLL = 10.0  # contract section 3
_POLL_GROWTH = 1.5


def leave_to_retry(error: WorkerError, deadline: Deadline) -> bool:
    """Whether a later delivery may still do better; otherwise the error is the file's end."""
    return error.retry and not deadline.over


def process_file(call: Call, data: FileData, file: FileHash, deadline: Deadline) -> FileResult:
    """Take one file to its end. What goes wrong with this file alone is its end.

    Raises:
        HandBack: the slice is over while the tools still run; their run is picked up by its key.
        TransientError: backend or state store are away.
    """
    backend = call.backend(data.organization_id)
    started = time.monotonic()
    row = backend.file_execution(data.execution_id, data.workflow_id, file)
    if row.status in TERMINAL:
        return _already_ended(file, row)
    try:
        run = _run_tools(call, data, file, row.id, deadline)
    except WorkerError as error:
        if leave_to_retry(error, deadline):
            raise
        run = FileRun(status=Status.ERROR, error=str(error))
    result = FileResult(
        file=file.file_name,
        file_execution_id=row.id,
        status=Status.COMPLETED if run.succeeded else Status.ERROR,
        error=None if run.succeeded else run.error or "the tools ended without a result and without a reason",
        execution_time=round(run.execution_time or time.monotonic() - started, 3),
    )
    if file.source_connection_type == "API":
        call.state.push_api_result(data.workflow_id, data.execution_id, row.id, api_result(result, run))
    backend.file_status(row.id, result.status, result.error)
    FILES.labels("succeeded" if run.succeeded else "failed").inc()
    log.info("file_ended", file_execution_id=row.id, status=result.status, seconds=result.execution_time)
    return result


def _already_ended(file: FileHash, row: FileExecution) -> FileResult:
    FILES.labels("skipped").inc()
    error = None if row.status == Status.COMPLETED else row.execution_error or f"the file was {row.status} already"
    return FileResult(
        file=file.file_name, file_execution_id=row.id, status=Status(row.status), error=error, skipped=True
    )


def _run_tools(call: Call, data: FileData, file: FileHash, key: str, deadline: Deadline) -> FileRun:
    backend = call.backend(data.organization_id).until(min(deadline, call.deadline, key=lambda one: one.at))
    run: FileRun | None = None
    wait = 0.0
    while run is None or run.running:
        deadline.check()
        with deadline.step("waiting for the tools"):
            stopped = call.stopping.wait(call.slice.cut(deadline.cut(wait)))
        if stopped or call.slice.over:
            raise HandBack("the tools still run")
        try:
            run = backend.execute_file(key, data, file) if run is None else backend.file_run(key)
            wait = min(max(run.poll_after, wait * _POLL_GROWTH, _SHORTEST_POLL), _LONGEST_POLL)
        except NotFoundError:
            if run is None:
                raise
            run = None  # never accepted: send it again
        except BackendBusyError as busy:
            asked = min(wait * _POLL_GROWTH, _LONGEST_POLL) if busy.retry_after is None else busy.retry_after
            wait = asked + random.uniform(_SHORTEST_POLL, 1)  # noqa: S311 # spreads load, guards nothing
    return run


def api_result(result: FileResult, run: FileRun) -> dict[str, Any]:
    """The item that the backend reads from `api_results:` (contract section 2)."""
    return {
        "file": result.file,
        "file_execution_id": result.file_execution_id,
        "status": "Success" if run.succeeded else "Failed",
        "result": run.result if run.succeeded else None,
        "error": result.error,
        "metadata": run.metadata,
    }
