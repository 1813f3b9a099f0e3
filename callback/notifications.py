"""Who wants to hear of an execution's end: each webhook is told once, by the backend's buffer where there is one.

Neither way can be exactly once: a process may die between telling and remembering. So every event carries a key that
stays the same, and a second telling is counted.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from monitoring.prometheus_metrics import NOTIFICATIONS, NOTIFICATIONS_DROPPED, NOTIFICATIONS_REPEATED
from shared.api_client import OrganizationAPI
from shared.call import Call
from shared.errors import BackendBusyError, BackendRefusedError, CircuitOpenError, NotFoundError
from shared.logging_utils import get_logger
from shared.platform_models import Notification, NotificationEvent, Notifications
from shared.webhook_protocol import authorized

log = get_logger(__name__)

_WEBHOOK_TASK = "send_webhook_notification"
_WEBHOOK_QUEUE = "notifications"
_TIMEOUT_SECONDS = 10
_RETRY_SECONDS = 10
_MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class End:
    """How an execution ended, for those who want to hear of it."""

    execution_id: str
    pipeline_id: str
    status: str
    message: str | None


def notify(call: Call, backend: OrganizationAPI, end: End) -> None:
    """Tell every webhook of the pipeline or API deployment that has not been told.

    Raises:
        TransientError: the backend or the broker are away; those that were told will not be told again.
    """
    try:
        # Of API deployments too: their own route answers 500 for an unknown id. The backend leaves out those that are
        # for failures only, if there was none.
        found = backend.pipeline_notifications(end.pipeline_id, end.execution_id)
    except NotFoundError:
        return
    for notification in found.notifications:
        if notification.is_active:
            _tell_once(call, backend, notification, _event(found, notification, end))


def _tell_once(call: Call, backend: OrganizationAPI, notification: Notification, event: NotificationEvent) -> None:
    tries = call.state.begin_notification(event.execution_id, notification.id)
    if tries == 0:
        return
    if tries > _MOST_TRIES:
        NOTIFICATIONS_DROPPED.inc(reason="deaths")
        log.error("notification_dropped", notification_id=notification.id, tries=tries - 1)
        return
    if tries > 1:
        NOTIFICATIONS_REPEATED.inc()
    call.deadline.guard()
    try:
        _tell(call, backend, notification, event)
    except (BackendBusyError, CircuitOpenError):
        call.state.not_notified(event.execution_id, notification.id, tries)  # nobody was asked, or took it
        raise
    call.state.notified(event.execution_id, notification.id)


def _tell(call: Call, backend: OrganizationAPI, notification: Notification, event: NotificationEvent) -> None:
    try:
        backend.enqueue_notification(event)
    except NotFoundError:
        _send(call, notification, event)
        NOTIFICATIONS.inc(outcome="sent")
        return
    except BackendRefusedError as refused:
        if refused.retry:
            raise
        NOTIFICATIONS_DROPPED.inc(reason="refused")
        log.warning("notification_dropped", notification_id=notification.id, reason=str(refused))
        return
    NOTIFICATIONS.inc(outcome="enqueued")


def _send(call: Call, notification: Notification, event: NotificationEvent) -> None:
    """Send the webhook ourselves: this backend has no buffer."""
    headers = authorized(
        notification.authorization_type, notification.authorization_key, notification.authorization_header
    )
    kwargs = {
        "max_retries": notification.max_retries,
        "retry_delay": _RETRY_SECONDS,
        "platform": notification.platform,
        "idempotency_key": key_of(event.execution_id, notification.id),
    }
    args = [notification.url, _payload(event), headers, _TIMEOUT_SECONDS]
    call.send(_WEBHOOK_TASK, _WEBHOOK_QUEUE, args, kwargs)


def key_of(execution_id: str, notification_id: str) -> str:
    """What names the telling of an execution's end to one webhook, however often it is tried."""
    return f"{execution_id}:{notification_id}"


def _event(found: Notifications, notification: Notification, end: End) -> NotificationEvent:
    counts = found.execution_counts.model_dump(exclude_none=True)
    return NotificationEvent(
        notification_id=notification.id,
        type=found.pipeline_type or "API",
        execution_id=end.execution_id,
        pipeline_id=end.pipeline_id,
        pipeline_name=found.pipeline_name or end.pipeline_id,
        status=end.status,
        platform=notification.platform or "API",
        timestamp=datetime.now(UTC),
        error_message=end.message or None,
        additional_data=counts | {"idempotency_key": key_of(end.execution_id, notification.id)},
    )


def _payload(event: NotificationEvent) -> dict[str, Any]:
    """The event as the backend's buffer would send it."""
    said = {
        "type": event.type,
        "pipeline_id": event.pipeline_id,
        "pipeline_name": event.pipeline_name,
        "status": event.status,
        "execution_id": event.execution_id,
        "error_message": event.error_message,
        "timestamp": event.timestamp.isoformat(),
    }
    return {name: value for name, value in said.items() if value is not None} | (event.additional_data or {})
