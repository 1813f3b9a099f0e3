"""The end of an execution: status and counts in one write, its pipeline's status, its notifications, nothing left.

Each step may be done again: a delivery that finds the execution terminal goes on with what comes after, and what is
kept of the execution goes last.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from callback.aggregation import Verdict, verdict
from callback.notifications import End, notify
from callback.rows import results_of_rows
from monitoring.prometheus_metrics import EXECUTION_SECONDS, EXECUTIONS
from shared.api_client import OrganizationAPI
from shared.backend_models import Execution
from shared.call import Call, bury
from shared.errors import NotFoundError
from shared.execution_state import Known, Run
from shared.logging_utils import get_logger
from shared.models import Callback, PipelineStatus, Status
from shared.orchestration import REAPED
from shared.transitions import may_become

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """An execution that is to end.

    Attributes:
        call: this delivery.
        backend: the internal API for its organization.
        callback: what the message says.
        execution: what the backend says.
        run: what it was started as.
        known: how it went.
        reaped: why the reaper ends it, if so.
    """

    call: Call
    backend: OrganizationAPI
    callback: Callback
    execution: Execution
    run: Run
    known: Known
    reaped: str | None


def finalize(call: Call, callback: Callback) -> dict[str, Any]:
    """Write how an execution ended, and whatever follows from that."""
    execution_id = callback.execution_id
    backend = call.backend(callback.organization_id)
    try:
        execution = backend.execution(execution_id)
    except NotFoundError as deleted:
        _clear(call, call.state.run(execution_id), execution_id)
        log.warning("execution_deleted", reason=str(deleted))
        return {"status": "DELETED", "execution_id": execution_id}
    known = call.state.known(execution_id)
    run = known.run
    if run is None and execution.execution.is_terminal:
        return {"status": execution.execution.status, "execution_id": execution_id}
    # Known from here on, whoever started it: what follows the status must be found to do after a crash.
    run = run or call.state.register(_unregistered(callback, execution))
    ending = Ending(call, backend, callback, execution, run, known, call.headers.get(REAPED))
    missing = _missing_batches(ending)
    if missing:
        return _leave_alone(call, callback, missing)
    status, message = _end(ending)
    _end_pipeline(ending, status)
    pipeline_id = callback.pipeline_id or execution.execution.pipeline_id
    if pipeline_id:
        notify(call, backend, End(execution_id, pipeline_id, status, message))
    _clear(call, run, execution_id)
    return {"status": status, "execution_id": execution_id}


def _unregistered(callback: Callback, execution: Execution) -> Run:
    return Run(
        callback.execution_id,
        callback.organization_id,
        execution.execution.workflow_id,
        callback.pipeline_id,
        execution.source_config.is_api,
    )


def _clear(call: Call, run: Run | None, execution_id: str) -> None:
    if run is not None and not run.is_api:
        call.state.reservations.release(run.workflow_id, execution_id)
    call.state.forget(execution_id)


def _missing_batches(ending: Ending) -> str | None:
    """Why a callback must not end the execution: it is a stray one, or somebody's, while batches are at work."""
    call, execution_id = ending.call, ending.callback.execution_id
    if ending.reaped or ending.execution.execution.is_terminal or ending.known.failure:
        return None
    if ending.run.batches is None:
        starting = call.claims.alive(call.state.claim(execution_id, "orchestration"))
        return "a callback came while the execution was being started" if starting else None
    recorded = len(ending.known.results)
    missing = ending.run.batches - recorded
    return f"a callback came while {recorded} of {ending.run.batches} batches have ended" if missing else None


def _leave_alone(call: Call, callback: Callback, reason: str) -> dict[str, Any]:
    bury(call, ValueError(reason), callback.results, **callback.model_dump(exclude={"results"}))
    return {"status": "ignored", "execution_id": callback.execution_id}


def _end(ending: Ending) -> tuple[str, str | None]:
    """Write the status, unless it is final. The status that there is then, and its message."""
    row = ending.execution.execution
    if row.is_terminal and not (ending.reaped and row.status == Status.ERROR):
        return row.status, row.error_message
    found = _verdict(ending)
    if not may_become(row.status, found.status, reaping=bool(ending.reaped)):
        return row.status, row.error_message
    if not ending.backend.end_execution(row.id, found.status, found.counts, found.message):
        row = ending.backend.execution(row.id).execution
        return row.status, row.error_message
    _count(ending, found.status)
    counts = found.counts
    said = {"files": counts.total_files, "successful": counts.successful_files, "failed": counts.failed_files}
    log.info("execution_ended", status=found.status, reaped=ending.reaped, **said)
    return found.status, found.message


def _count(ending: Ending, status: str) -> None:
    EXECUTIONS.inc(status=status)
    created = ending.execution.execution.created_at
    if created is not None:
        kind = "api" if ending.execution.source_config.is_api else "pipeline"
        seconds = max(0.0, (datetime.now(UTC) - created).total_seconds())
        EXECUTION_SECONDS.observe(seconds, kind=kind, status=status)


def _verdict(ending: Ending) -> Verdict:
    known = ending.known
    if ending.run.batches is None:  # a start that was at it until now may just have failed
        known = ending.call.state.known(ending.callback.execution_id)
    total = max(ending.execution.execution.total_files or 0, ending.run.files)
    if known.failure is not None:
        reason, files = known.failure
        return verdict(ending.callback.results, max(total, files), reason)
    results = list(_results(ending))
    if ending.reaped and not total and not results[0].file_results:
        return verdict([], 0, ending.reaped)
    notes = [f"{name} was skipped: {reason}" for name, reason in sorted(known.skipped.items())]
    return verdict(results, total, None, [ending.reaped, *notes] if ending.reaped else notes)


def _results(ending: Ending) -> Iterable[Any]:
    """What the batches recorded, where they did; for the reaper, what the backend has of the files."""
    if ending.reaped:
        return [results_of_rows(ending.call, ending.backend, ending.run, ending.reaped)]
    if ending.run.batches is None:
        return ending.callback.results
    return ending.known.results.values()


def _end_pipeline(ending: Ending, status: str) -> None:
    pipeline_id = ending.callback.pipeline_id or ending.execution.execution.pipeline_id
    if ending.execution.source_config.is_api or not pipeline_id:
        return
    ended = PipelineStatus.SUCCESS if status == Status.COMPLETED else PipelineStatus.FAILURE
    try:
        ending.backend.pipeline_status(pipeline_id, ended, is_end=True)
    except NotFoundError:
        log.info("pipeline_deleted")  # its execution ends all the same
