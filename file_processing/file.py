"""One file through the backend's tools: row, execution, result, history, status (contract sections 3 and 4).

The order makes each effect happen once: the run is keyed by the file's row, the result is pushed under a claim, and
the status comes last, so that a delivery that finds a terminal status knows everything before it is done.
"""

import json
import random
import time
from dataclasses import dataclass
from typing import Any

from monitoring.prometheus_metrics import FILES, HISTORIES_DROPPED, PAGES
from shared.api_client import OrganizationAPI
from shared.backend_models import FileExecution, FileRun
from shared.call import Call
from shared.deadline import Deadline
from shared.errors import BackendBusyError, BackendRefusedError, HandBack, NotFoundError, StateStoreError, WorkerError
from shared.logging_utils import bind_context, get_logger
from shared.models import TERMINAL, Context, FileData, FileHash, FileResult, Stage, Status

log = get_logger(__name__)

_SHORTEST_POLL = 0.1
_LONGEST_POLL = 10.0  # contract section 3
_POLL_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class FileJob:
    """One file to take to its end.

    Attributes:
        call: the delivery of its batch.
        context: what it shares with all files of its execution.
        data: what it shares with all files of its batch.
        file: the file.
        place: what names it within its execution.
        deadline: when it must have ended, whoever delivers it.
        condemned: why it may not run, if so: it ends in error.
    """

    call: Call
    context: Context
    data: FileData
    file: FileHash
    place: str
    deadline: Deadline
    condemned: str | None = None

    @property
    def backend(self) -> OrganizationAPI:
        """The internal API, until the deadline of this delivery."""
        return self.call.backend(self.data.organization_id)

    def stage(self, stage: Stage) -> None:
        """Tell those who watch. That they cannot be told is no reason to fail."""
        try:
            self.call.state.stage(self.data.execution_id, self.place, stage)
        except StateStoreError as error:
            log.debug("stage_not_told", reason=str(error))


def leave_to_retry(error: WorkerError, deadline: Deadline) -> bool:
    """Whether a later delivery may still do better; otherwise the error is the file's end."""
    return error.retry and not deadline.over


def process_file(job: FileJob) -> FileResult:
    """Take one file to its end. What goes wrong with this file alone is its end.

    Raises:
        HandBack: the slice is over while the tools still run; their run is picked up by its key.
        TransientError: backend or state store are away.
    """
    started = time.monotonic()
    row = job.backend.file_execution(job.data.execution_id, job.data.workflow_id, job.file)
    bind_context(file_execution_id=row.id)
    if row.status in TERMINAL:
        return _already_ended(job.file, row)
    run = _run(job, row.id)
    result = FileResult(
        file=job.file.file_name,
        file_execution_id=row.id,
        status=Status.COMPLETED if run.succeeded else Status.ERROR,
        error=None if run.succeeded else run.error or "the tools ended without a result and without a reason",
        execution_time=round(run.execution_time or time.monotonic() - started, 3),
    )
    _store(job, row, run, result)
    FILES.inc(outcome="succeeded" if run.succeeded else "failed")
    PAGES.inc(_pages(run) if run.succeeded else 0)
    log.info("file_ended", status=result.status, seconds=result.execution_time)
    return result


def _pages(run: FileRun) -> int:
    said = run.result if isinstance(run.result, dict) else run.metadata or {}
    pages = said.get("pages")
    return pages if isinstance(pages, int) and pages > 0 else 0


def _already_ended(file: FileHash, row: FileExecution) -> FileResult:
    FILES.inc(outcome="skipped")
    error = None if row.status == Status.COMPLETED else row.execution_error or f"the file was {row.status} already"
    return FileResult(
        file=file.file_name, file_execution_id=row.id, status=Status(row.status), error=error, skipped=True
    )


def _run(job: FileJob, key: str) -> FileRun:
    if job.condemned is not None:
        return FileRun(status=Status.ERROR, error=job.condemned)
    found = _remembered(job)
    if found is not None:
        return found
    job.stage(Stage.EXECUTING)
    try:
        return _ended_meanwhile(job, key) or _run_tools(job, key)
    except StateStoreError:
        raise
    except WorkerError as error:
        if leave_to_retry(error, job.deadline):
            raise
        return FileRun(status=Status.ERROR, error=str(error))


def _ended_meanwhile(job: FileJob, key: str) -> FileRun | None:
    """The run of a file whose time is over, if it has ended: its batch may have waited in a long queue meanwhile."""
    if not job.deadline.over:
        return None
    try:
        run = job.backend.file_run(key)
    except NotFoundError:
        return None
    return None if run.running else run


def _remembered(job: FileJob) -> FileRun | None:
    """The run that the history has of this file, if the execution asked for it and found one when it started."""
    if not (job.data.use_file_history and job.file.file_hash):
        return None
    found = job.call.state.cached(job.data.execution_id, job.file.file_hash)
    if found is None:
        return None
    return FileRun(status=Status.COMPLETED, result=_decoded(found["result"]), metadata={"from_history": True})


def _decoded(text: str) -> Any:
    """A result as the tools gave it: the history keeps what is no text as JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _run_tools(job: FileJob, key: str) -> FileRun:
    call, deadline = job.call, job.deadline
    backend = job.backend.until(min(deadline, call.deadline, key=lambda one: one.at))
    run: FileRun | None = None
    wait = 0.0
    while run is None or run.running:
        deadline.check()
        with deadline.step("waiting for the tools"):
            stopped = call.stopping.wait(call.slice.cut(deadline.cut(wait)))
        if stopped or call.slice.over:
            raise HandBack("the tools still run")
        try:
            run = backend.execute_file(key, job.data, job.file) if run is None else backend.file_run(key)
            wait = min(max(run.poll_after, wait * _POLL_GROWTH, _SHORTEST_POLL), _LONGEST_POLL)
        except NotFoundError:
            if run is None:
                raise
            run = None  # never accepted: send it again
        except BackendBusyError as busy:
            asked = min(wait * _POLL_GROWTH, _LONGEST_POLL) if busy.retry_after is None else busy.retry_after
            wait = asked + random.uniform(_SHORTEST_POLL, 1)  # noqa: S311 # spreads load, guards nothing
    return run


def _store(job: FileJob, row: FileExecution, run: FileRun, result: FileResult) -> None:
    data = job.data
    if job.context.is_api:
        job.call.deadline.guard()
        item = api_result(result, run)
        job.call.state.push_api_result(data.workflow_id, data.execution_id, row.id, item, job.place)
    else:
        job.stage(Stage.STORING)
    if run.succeeded and data.use_file_history and not (run.metadata or {}).get("from_history"):
        _remember(job, run)
    job.backend.file_status(row.id, result.status, result.error)


def _remember(job: FileJob, run: FileRun) -> None:
    """Write the history of a file. Sources that are only listed have no hash; the tools say it then, having read it."""
    file_hash = job.file.file_hash or (run.metadata or {}).get("file_hash")
    if not file_hash:
        HISTORIES_DROPPED.inc(reason="without_hash")
        log.warning("file_without_hash")
        return
    file = job.file.model_copy(update={"file_hash": file_hash})
    try:
        job.backend.remember_file(job.data.workflow_id, file, run, is_api=job.context.is_api)
    except BackendRefusedError as refused:
        if refused.retry:
            raise
        HISTORIES_DROPPED.inc(reason="refused")
        log.warning("history_refused", reason=str(refused))


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
