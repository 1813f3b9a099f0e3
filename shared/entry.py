"""`async_execute_bin`: registered once, it decides by the execution what happens, not by who received the message.

Two workers take this message, each from its own queue, and one process may be both; in one process a name can have
only one function. So the kind of the execution picks a row of the registry (contract section 1 and 4).
"""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from config.workers import Orchestration, orchestration_of
from monitoring.prometheus_metrics import MESSAGES_FORWARDED
from shared.api_client import OrganizationAPI
from shared.backend_models import Execution, History
from shared.call import Call, bury, note_unknown
from shared.claims import Claim
from shared.errors import (
    AnswerTooLargeError,
    BackendRefusedError,
    BackendUnavailableError,
    NotFoundError,
    OrchestrationError,
    TransientError,
)
from shared.execution_state import Run
from shared.logging_utils import get_logger
from shared.models import Context, ExecuteOptions, ExecuteRequest, FileHash, Status, parse
from shared.orchestration import fan_out, finish, run_of, send_again
from shared.task import task
from shared.transitions import may_become

log = get_logger(__name__)

_FORWARDED = "forwarded"
# An execution that could not be started for that long ends in error, and its caller hears of it.
_PATIENCE_SECONDS = 300.0
_COMMIT_SECONDS = 10.0  # the longest that the transaction which made an execution may end behind its message
_UNPROCESSABLE = 422
_BATCHES_KEY = "MAX_PARALLEL_FILE_BATCHES"


def _work(call: Call, /, *args: Any, **_options: Any) -> Claim | None:
    """An execution is started once, by whatever message comes first."""
    named = len(args) > 2 and isinstance(args[2], str) and args[2]
    return call.state.claim(args[2], "orchestration") if named else None


def _about(args: tuple[Any, ...], _kwargs: Mapping[str, Any], /) -> Mapping[str, Any]:
    return dict(zip(("organization_id", "workflow_id", "execution_id"), args, strict=False))


def _end_failed(call: Call, error: Exception, /, *args: Any, **options: Any) -> None:
    """Keep the reason, and have the callback write it: one place writes how executions end."""
    if len(args) < 3 or not all(isinstance(value, str) and value for value in args[:3]):
        bury(call, error, *args, **options)
        return
    pipeline_id = options.get("pipeline_id")
    files = args[3] if len(args) > 3 and isinstance(args[3], dict) else {}
    is_api = call.queue == orchestration_of(is_api=True).queue
    run = call.state.register(
        Run(args[2], args[0], args[1], pipeline_id if isinstance(pipeline_id, str) else None, is_api)
    )
    call.state.fail(run.execution_id, str(error) or type(error).__name__, len(files))
    finish(call, run)


@task(
    "async_execute_bin",
    "async_execute_bin_api",
    finalizer=_end_failed,
    patience=_PATIENCE_SECONDS,
    work=_work,
    about=_about,
)
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
    execution = _execution(call, backend, execution_id)
    if not may_become(execution.execution.status, Status.EXECUTING):
        return _answer(
            call, request, status="skipped", message=f"the execution is {execution.execution.status} already"
        )
    kind = orchestration_of(is_api=execution.source_config.is_api)
    if not call.app.profile.orchestrates(kind):
        return _forward(call, request, kind, [schema_name, workflow_id, execution_id, hash_values_of_files], options)
    return _orchestrate(call, request, kind, backend)


def _execution(call: Call, backend: OrganizationAPI, execution_id: str) -> Execution:
    """The execution. A message may overtake the transaction that makes it: one that is missing is looked for again."""
    try:
        return backend.execution(execution_id)
    except NotFoundError as missing:
        if call.age >= _COMMIT_SECONDS:
            raise
        raise TransientError(f"{missing}; its transaction may not have ended") from missing


def _forward(
    call: Call, request: ExecuteRequest, kind: Orchestration, args: Sequence[Any], options: dict[str, Any]
) -> dict[str, Any]:
    if call.headers.get(_FORWARDED):
        raise OrchestrationError(
            f"the message was forwarded to {call.queue} already, and the worker there does not serve this execution: "
            "start the worker of that queue without --queues of another"
        )
    call.settle(done=False)  # it is the next worker's to do
    call.send(call.task, kind.queue, list(args), options, headers={_FORWARDED: call.queue}, task_id=call.task_id)
    MESSAGES_FORWARDED.inc(name=call.task, queue_name=kind.queue)
    log.info("message_forwarded", queue=kind.queue)
    return _answer(call, request, status="forwarded", message=f"sent on to {kind.queue}")


def _orchestrate(call: Call, request: ExecuteRequest, kind: Orchestration, backend: OrganizationAPI) -> dict[str, Any]:
    execution_id, workflow_id = request.execution_id, request.workflow_id
    run = call.state.register(run_of(request, kind))
    if run.batches is not None:
        return _go_on(call, request, run)
    _validate_tools(backend, workflow_id)
    source: Callable[[Call, OrganizationAPI, ExecuteRequest], Sequence[FileHash]] = pkgutil.resolve_name(kind.source)
    files = source(call, backend, request)
    cached = _look_up(call, request, backend, files)
    backend.start_execution(execution_id, len(files))
    call.state.keep_context(
        Context(
            execution_id=execution_id,
            workflow_id=workflow_id,
            organization_id=request.organization_id,
            pipeline_id=request.options.pipeline_id,
            is_api=kind.is_api,
        )
    )
    batches = fan_out(call, request, kind, files, _batch_limit(call, backend))
    log.info("execution_started", files=len(files), batches=batches, from_history=len(cached))
    answer = _answer(call, request, status="orchestrated", message=f"{len(files)} files in {batches} batches")
    return answer | {
        "files_processed": len(files) - len(cached),
        "files_from_cache": len(cached),
        "cached_results": dict.fromkeys(cached, Status.COMPLETED),
        "batches_created": batches,
        "chord_id": execution_id if batches else None,
    }


def _go_on(call: Call, request: ExecuteRequest, run: Run) -> dict[str, Any]:
    """An earlier delivery has divided the files, and died before all were sent: the source may have changed since."""
    sent = send_again(call, run)
    if not run.batches:
        finish(call, run)
    log.info("execution_started", files=run.files, batches=run.batches, sent_again=len(sent))
    answer = _answer(call, request, status="orchestrated", message=f"{run.files} files, started before")
    return answer | {"files_processed": run.files, "batches_created": run.batches, "chord_id": run.execution_id}


def _look_up(call: Call, request: ExecuteRequest, backend: OrganizationAPI, files: Sequence[FileHash]) -> list[str]:
    """Keep what the history has of these files for their batches. The names of those it has."""
    hashes = sorted({file.file_hash for file in files if file.file_hash})
    if not (request.options.use_file_history and hashes):
        return []
    found = _histories(backend, request.workflow_id, hashes)
    usable = {key: {"result": past.result} for key, past in found.items() if past.status == "COMPLETED" and past.result}
    call.state.keep_cached(request.execution_id, usable)
    return [file.file_name for file in files if file.file_hash in usable]


def _histories(backend: OrganizationAPI, workflow_id: str, hashes: Sequence[str]) -> dict[str, History]:
    """One request for all files, unless they have more text than we read at once."""
    try:
        return backend.file_histories(workflow_id, hashes)
    except AnswerTooLargeError as error:
        if len(hashes) == 1:
            log.warning("history_not_read", reason=str(error))
            return {}
    half = len(hashes) // 2
    return _histories(backend, workflow_id, hashes[:half]) | _histories(backend, workflow_id, hashes[half:])


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
