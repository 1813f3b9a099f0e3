"""Lines of the logs of executions: recorded for the backend, and shown to those who watch."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from general.log_records import LogRecords
from monitoring.prometheus_metrics import LOG_EMISSIONS_DROPPED, LOG_RECORDS
from shared.call import Call
from shared.errors import WorkerError
from shared.execution_log import line_of
from shared.logging_utils import get_logger
from shared.models import NonEmpty, Payload
from shared.redis_connection import redis_client
from shared.state_store import MARGIN_SECONDS

log = get_logger(__name__)

_RECORD_FIELDS = ("execution_id", "file_execution_id", "organization_id", "timestamp", "type", "data")


class LogLine(Payload):
    """The arguments of `logs_consumer`. What stands in `message` may be from a document: never log it."""

    event: NonEmpty
    message: dict[str, Any] = Field(repr=False)
    user_session_id: NonEmpty


def consume(call: Call, line: LogLine) -> dict[str, Any]:
    """Record a line once, if it is of an execution, then show it to those who watch its room, once at most."""
    record = record_of(line.message)
    outcome = "passed"
    if record is not None:
        outcome = "recorded" if _records(call).append(call.task_id, record, line_of(line.message)) else "repeated"
    LOG_RECORDS.inc(outcome=outcome)
    if outcome == "repeated":
        # Its first delivery shows it, or has died between the two: it is in the history then.
        return {"recorded": True, "shown": False}
    return {"recorded": record is not None, "shown": _show(call, line)}


def record_of(message: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a line: those fields of its message that the backend keeps. None: it is of no execution."""
    if not message.get("execution_id"):
        return None
    return {name: message[name] for name in _RECORD_FIELDS if message.get(name) is not None}


def _show(call: Call, line: LogLine) -> bool:
    try:
        call.app.resources.client.emit(line.user_session_id, line.event, line.message, call.deadline)
    except WorkerError as error:
        LOG_EMISSIONS_DROPPED.inc()
        log.warning("log_emission_dropped", reason=type(error).__name__)
        return False
    return True


def _records(call: Call) -> LogRecords:
    settings = call.settings
    # A message comes again when its connection is lost, or at the latest when its broker's patience is over.
    remembered = 2 * max(settings.visibility, settings.consumer_timeout)
    kept = int(settings.execution_deadline) + MARGIN_SECONDS
    return call.app.resources.held(
        "log_records", lambda: LogRecords(redis_client(settings), settings.log_queue, remembered, kept)
    )
