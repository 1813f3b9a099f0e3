"""`async_execute_bin`: registered once, it decides by the execution what happens, not by who received the message.

Two workers take this message, each from its own queue, and one process may be both; in one process a name can have
only one function. So the kind of the execution picks a row of the registry (contract section 1 and 4).
"""

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from config.workers import Orchestration, orchestration_of
from monitoring.prometheus_metrics import MESSAGES_FORWARDED
from shared.api_client import OrganizationAPI
from shared.errors import BackendRefusedError, BackendUnavailableError, OrchestrationError
from shared.logging_utils import bind_context, get_logger
from shared.models import ExecuteOptions, ExecuteRequest, FileHash, parse
from shared.orchestration import fan_out, send_callback
from shared.task import Call, bury, note_unknown, task

log = get_logger(__name__)

_FORWARDED = "forwarded"
# An execution that could not be started for that long ends in error, and its caller hears of it.
_PATIENCE_SECONDS = 300.0
_UNPROCESSABLE = 422
_BATCHES_KEY = "MAX_PARALLEL_FILE_BATCHES"


def _end_failed(call: Call, error: Exception, /, *args: Any, **options: Any) -> None:
    """Keep the reason, and have the callback write it: one place writes how executions end."""
    if len(args) < 3 or not all(isinstance(value, str) and value for value in args[:3]):
        bury(call, error, *args, **options)
        return
    running = call.state.fan_in(args[2])
    if running is not None and running.kick_off != call.task_id:
        bury(call, error, *args, **options)  # of an execution that another message has started, and that goes on
        return
    pipeline_id = options.get("pipeline_id")
    request = ExecuteRequest(
        organization_id=args[0],
        workflow_id=args[1],
        execution_id=args[2],
        files={},
        options=ExecuteOptions(pipeline_id=pipeline_id if isinstance(pipeline_id, str) else None),
    )
    call.state.fail(request.execution_id, str(error) or type(error).__name__)
    send_callback(call, orchestration_of(is_api=call.queue == orchestration_of(is_api=True).queue), request, [])


@task("async_execute_bin", "async_execute_bin_api", finalizer=_end_failed, patience=_PATIENCE_SECONDS)
def async_execute_bin(
    call: Call,
    /,
    schema_name: str,
    workflow_id: str,
    execution_id: str,
    hash_values_of_files: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Start an execution. Arguments and return: contract section 1; keyword arguments we do not know are logged."""
    bind_context(execution_id=execution_id, organization_id=schema_name)
    note_unknown(ExecuteOptions, options)
    request = parse(
        ExecuteRequest,
        {
            "organization_id": schema_name,
            "workflow_id": workflow_id,
            "execution_id": execution_id,
            "files": hash_values_of_files or {},
            "options": options,
        },
    )
    backend = call.backend(request.organization_id)
    execution = backend.execution(execution_id)
    if execution.execution.is_terminal:
        return _answer(
            call, request, status="skipped", message=f"the execution is {execution.execution.status} already"
        )
    kind = orchestration_of(is_api=execution.source_config.is_api)
    if not call.app.profile.orchestrates(kind):
        return _forward(call, request, kind, [schema_name, workflow_id, execution_id, hash_values_of_files], options)
    return _orchestrate(call, request, kind, backend)


def _forward(
    call: Call, request: ExecuteRequest, kind: Orchestration, args: Sequence[Any], options: dict[str, Any]
) -> dict[str, Any]:
    if call.headers.get(_FORWARDED):
        raise OrchestrationError(
            f"the message was forwarded to {call.queue} already, and the worker there does not serve this execution: "
            "start the worker of that queue without --queues of another"
        )
    call.send(call.task, kind.queue, list(args), options, headers={_FORWARDED: call.queue}, task_id=call.task_id)
    MESSAGES_FORWARDED.labels(call.task, kind.queue).inc()
    log.info("message_forwarded", queue=kind.queue)
    return _answer(call, request, status="forwarded", message=f"sent on to {kind.queue}")


def _orchestrate(call: Call, request: ExecuteRequest, kind: Orchestration, backend: OrganizationAPI) -> dict[str, Any]:
    _validate_tools(backend, request.workflow_id)
    source: Callable[[OrganizationAPI, ExecuteRequest], Sequence[FileHash]] = pkgutil.resolve_name(kind.source)
    files = source(backend, request)
    backend.start_execution(request.execution_id, len(files))
    batches = fan_out(call, request, kind, files, _batch_limit(call, backend))
    log.info("execution_started", files=len(files), batches=batches)
    answer = _answer(call, request, status="orchestrated", message=f"{len(files)} files in {batches} batches")
    fan_in_id = request.execution_id if batches else None
    return answer | {"files_processed": len(files), "batches_created": batches, "chord_id": fan_in_id}


def _validate_tools(backend: OrganizationAPI, workflow_id: str) -> None:
    instances = [tool.id for tool in backend.tool_instances(workflow_id)]
    try:
        valid = backend.validate_tools(workflow_id, instances)
    except BackendRefusedError as refused:
        if refused.status != _UNPROCESSABLE:
            raise
        raise OrchestrationError(f"the workflow's tools are not valid: {refused}") from refused
    if not valid:
        raise OrchestrationError("the workflow's tools are not valid, and the backend does not say why")


def _batch_limit(call: Call, backend: OrganizationAPI) -> int:
    try:
        value = backend.configuration(_BATCHES_KEY)
    except (BackendRefusedError, BackendUnavailableError) as error:
        log.warning("configuration_not_found", key=_BATCHES_KEY, reason=str(error))
        value = None
    return value if isinstance(value, int) and value >= 1 else call.settings.max_parallel_batches


def _answer(call: Call, request: ExecuteRequest, *, status: str, message: str) -> dict[str, Any]:
    return {
        "status": status,
        "execution_id": request.execution_id,
        "workflow_id": request.workflow_id,
        "task_id": call.task_id,
        "files_processed": 0,
        "files_from_cache": 0,
        "batches_created": 0,
        "chord_id": None,
        "cached_results": {},
        "message": message,
    }
