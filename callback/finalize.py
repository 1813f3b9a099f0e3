"""The end of an execution: its status and counts in one write, its pipeline's status, nothing left behind."""

from typing import Any

from callback.aggregation import Verdict, verdict
from monitoring.prometheus_metrics import EXECUTIONS
from shared.api_client import OrganizationAPI
from shared.backend_models import Execution
from shared.errors import NotFoundError, PayloadError
from shared.logging_utils import get_logger
from shared.models import Callback, PipelineStatus, Status
from shared.task import Call

log = get_logger(__name__)


def finalize(call: Call, callback: Callback) -> dict[str, Any]:
    """Write how an execution ended. A second delivery writes nothing twice; of a deleted one nothing is kept."""
    backend = call.backend(callback.organization_id)
    try:
        execution = backend.execution(callback.execution_id)
    except NotFoundError:
        call.state.forget(callback.execution_id)
        raise
    status = execution.execution.status
    if not execution.execution.is_terminal:
        status = _end(call, backend, callback, execution)
    _end_pipeline(backend, callback, execution, status)
    call.state.forget(callback.execution_id)
    return {"status": status, "execution_id": callback.execution_id}


def _end(call: Call, backend: OrganizationAPI, callback: Callback, execution: Execution) -> str:
    found = _verdict(call, callback, execution)
    if not backend.end_execution(callback.execution_id, found.status, found.counts, found.message):
        return backend.execution(callback.execution_id).execution.status
    EXECUTIONS.labels(found.status).inc()
    log.info("execution_ended", status=found.status, **_counts(found))
    return found.status


def _verdict(call: Call, callback: Callback, execution: Execution) -> Verdict:
    total = execution.execution.total_files or 0
    failure = call.state.failure(callback.execution_id)
    return verdict(callback.results if failure else _results(call, callback), total, failure)


def _results(call: Call, callback: Callback) -> list[Any]:
    """What the batches recorded, where they did: a message may be a stray one, or somebody's."""
    running = call.state.fan_in(callback.execution_id)
    if running is None:
        return callback.results
    recorded = call.state.batch_results(callback.execution_id)
    if len(recorded) < running.batches:
        raise PayloadError(f"a callback came while {len(recorded)} of {running.batches} batches have ended")
    return list(recorded)


def _counts(found: Verdict) -> dict[str, int]:
    counts = found.counts
    return {"files": counts.total_files, "successful": counts.successful_files, "failed": counts.failed_files}


def _end_pipeline(backend: OrganizationAPI, callback: Callback, execution: Execution, status: str) -> None:
    pipeline_id = callback.pipeline_id or execution.execution.pipeline_id
    if execution.source_config.is_api or not pipeline_id:
        return
    ended = PipelineStatus.SUCCESS if status == Status.COMPLETED else PipelineStatus.FAILURE
    backend.pipeline_status(pipeline_id, ended, is_end=True)
