"""Scheduled pipelines: the platform's scheduler says that one is due, and its execution is created and started."""

from typing import Any

from config.workers import orchestration_of
from shared.api_client import OrganizationAPI
from shared.backend_models import NewExecution
from shared.call import Call
from shared.errors import BackendRefusedError, NotFoundError
from shared.execution_state import Run
from shared.logging_utils import bind_context, get_logger
from shared.models import NonEmpty, Payload, PipelineStatus, Status
from shared.orchestration import finish

log = get_logger(__name__)

_EXECUTE = "async_execute_bin"


class Due(Payload):
    """The arguments of `scheduler.tasks.execute_pipeline_task`, by their places; the empty ones mean nothing."""

    organization_id: NonEmpty
    pipeline_id: NonEmpty
    pipeline_name: str | None = None


def due(args: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments `["", organization, "", "", pipeline, with_logs, name]` by what they are (contract section 1)."""
    places = {"organization_id": 1, "pipeline_id": 4, "pipeline_name": 6}
    return {name: args[place] for name, place in places.items() if len(args) > place}


def start(call: Call, schedule: Due) -> dict[str, Any]:
    """Create the execution of a pipeline that is due, once, and send it to the general worker (contract section 4)."""
    backend = call.backend(schedule.organization_id)
    try:
        pipeline = backend.pipeline(schedule.pipeline_id)
    except BackendRefusedError as refused:
        if refused.retry:
            raise
        log.warning("pipeline_not_started", reason=str(refused))
        return {"status": "skipped", "message": f"the pipeline cannot be started: {refused}"}
    if not pipeline.active:
        log.info("pipeline_not_started", reason="it is not active")
        return {"status": "skipped", "message": "the pipeline is not active"}
    execution_id = _execution(call, backend, pipeline.workflow, schedule.pipeline_id)
    bind_context(execution_id=execution_id)
    kwargs = {"scheduled": True, "pipeline_id": schedule.pipeline_id, "use_file_history": True}
    args = [schedule.organization_id, pipeline.workflow, execution_id, {}]
    call.send(_EXECUTE, orchestration_of(is_api=False).queue, args, kwargs)
    log.info("pipeline_started")
    return {"status": "started", "execution_id": execution_id}


def _execution(call: Call, backend: OrganizationAPI, workflow_id: str, pipeline_id: str) -> str:
    """The execution of this message: created by it, or by an earlier delivery of it that did not come to say so.

    Creating is not idempotent, so after a lost answer or a death the newest one is taken that nobody has started and no
    other message has. If it is somebody else's after all, it is one run instead of two: starting it twice starts it
    once. Whose own was taken so takes what the other has left behind, which would be pending for ever.
    """
    found = call.state.begin_creation(call.task_id)
    if found:
        return found
    # Only before its execution was sent, or a later delivery would overwrite how that has ended.
    backend.pipeline_status(pipeline_id, PipelineStatus.INPROGRESS, is_end=False)
    wanted = NewExecution(workflow_id=workflow_id, pipeline_id=pipeline_id, scheduled=True)
    unsure = found is not None
    while True:
        for row in backend.executions(workflow_id, [Status.PENDING]) if unsure else []:
            free = row.pipeline_id == pipeline_id and not call.state.run(row.id)
            if free and call.state.created(call.task_id, row.id):
                return row.id
        created = backend.create_execution(wanted).execution_id
        if call.state.created(call.task_id, created):
            return created
        unsure = True


def fail(call: Call, error: Exception, schedule: Due) -> None:
    """End what a message has begun and cannot finish: the execution through its callback, else the pipeline at once."""
    execution_id = call.state.begin_creation(call.task_id)
    backend = call.backend(schedule.organization_id)
    if not execution_id:
        log.error("pipeline_not_started", reason=str(error))
        try:
            backend.pipeline_status(schedule.pipeline_id, PipelineStatus.FAILURE, is_end=True)
        except NotFoundError:
            log.info("pipeline_deleted")
        return
    bind_context(execution_id=execution_id)
    workflow_id = backend.execution(execution_id).execution.workflow_id
    run = call.state.register(
        Run(execution_id, schedule.organization_id, workflow_id, schedule.pipeline_id, is_api=False)
    )
    call.state.fail(execution_id, str(error) or type(error).__name__)
    finish(call, run)
