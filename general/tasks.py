"""The tasks of the general worker."""

from collections.abc import Mapping
from typing import Any

from general.logs import LogLine, consume
from general.notifications import MARK, Delivery, Marks, deliver, give_up, mark
from general.schedule import Due, due, fail, start
from general.webhooks import Webhooks
from shared.call import Call, bury, note_unknown
from shared.claims import Claim, message_claim
from shared.entry import async_execute_bin
from shared.errors import PayloadError
from shared.logging_utils import get_logger
from shared.models import parse
from shared.task import task
from shared.workflows.steps import workflow_step

__all__ = ["async_execute_bin", "workflow_step"]

log = get_logger(__name__)


def _by_message(call: Call, /, *_args: Any, **_kwargs: Any) -> Claim:
    return message_claim(call.task_id)


def _about_webhook(args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> Mapping[str, Any]:
    payload = args[1] if len(args) > 1 else kwargs.get("payload")
    execution_id = payload.get("execution_id") if isinstance(payload, Mapping) else None
    return {"organization_id": kwargs.get("organization_id"), "execution_id": execution_id}


@task("send_webhook_notification", finalizer=give_up, work=_by_message, about=_about_webhook)
def send_webhook_notification(
    call: Call, /, url: Any = None, payload: Any = None, headers: Any = None, timeout: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """Tell somebody of events, at an address of theirs. Payload: contract section 1."""
    note_unknown(Delivery, kwargs)
    said = {**kwargs, "url": url, "payload": payload, "headers": headers, "timeout": timeout}
    delivery = parse(Delivery, said)
    webhooks = call.app.resources.held("webhooks", lambda: Webhooks(call.settings))
    return deliver(call, delivery, webhooks)


@task(MARK)
def mark_notifications(call: Call, /, **kwargs: Any) -> dict[str, Any]:
    """Tell the backend what became of events, which it could not be told at once. A message of ours alone."""
    return mark(call, parse(Marks, kwargs))


def _about_line(_args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> Mapping[str, Any]:
    line = kwargs.get("message")
    names = ("execution_id", "file_execution_id", "organization_id")
    return {name: line.get(name) for name in names} if isinstance(line, Mapping) else {}


@task("logs_consumer", about=_about_line)
def logs_consumer(call: Call, /, **kwargs: Any) -> dict[str, Any]:
    """Record a line of an execution's log, and show it. Payload: contract section 1."""
    note_unknown(LogLine, kwargs)
    return consume(call, parse(LogLine, kwargs))


def _fail(call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None:
    try:
        schedule = parse(Due, due(args))
    except PayloadError:
        bury(call, error, *args, **kwargs)
        return
    fail(call, error, schedule)


def _about_pipeline(args: tuple[Any, ...], _kwargs: Mapping[str, Any], /) -> Mapping[str, Any]:
    return {name: said for name, said in due(args).items() if name != "pipeline_name"}


@task("scheduler.tasks.execute_pipeline_task", finalizer=_fail, patience=300.0, work=_by_message, about=_about_pipeline)
def execute_pipeline_task(call: Call, /, *args: Any, **unknown: Any) -> dict[str, Any]:
    """Start a pipeline that is due. Arguments: contract section 1."""
    note_unknown(Due, unknown)
    return start(call, parse(Due, due(args)))


def leave_to_the_next(_call: Call, error: Exception, /, *_args: Any, **_kwargs: Any) -> None:
    """End a periodic task that failed: the next one does its work too."""
    log.warning("periodic_task_left_to_the_next", reason=str(error))


@task("process_log_history", finalizer=leave_to_the_next, patience=0, work=_by_message)
def process_log_history(call: Call, /, **_kwargs: Any) -> dict[str, Any]:
    """Have the waiting log records of every organization moved to the backend's database."""
    return call.app.resources.client.process_log_history(call.deadline).model_dump()


@task("process_notification_buffer", finalizer=leave_to_the_next, patience=0, work=_by_message)
def process_notification_buffer(call: Call, /, **_kwargs: Any) -> dict[str, Any]:
    """Have all events sent that are due, of every organization."""
    return call.app.resources.client.dispatch_notifications(call.deadline).model_dump()


@task("workers.release_expired_reservations", finalizer=leave_to_the_next, patience=0, work=_by_message)
def release_expired_reservations(call: Call, /, **_kwargs: Any) -> dict[str, Any]:
    """Give back the files that no execution may hold any more, of every workflow."""
    freed = call.state.reservations.release_expired()
    if freed:
        log.info("reservations_released", files=freed)
    return {"files": freed}
