"""Webhooks as tasks: what is sent, what comes of an answer, and how the backend hears of it.

A webhook can be sent twice, since its sender may die before it is noted as sent; its key says so to the receiver.
"""

import json
import time
from typing import Any, Literal

from pydantic import ConfigDict, Field

from general.messages import message_for
from general.told_events import ToldEvents
from general.webhooks import Answer, Post, Webhooks, address
from monitoring.prometheus_metrics import WEBHOOK_MARKS_DROPPED, WEBHOOKS, WEBHOOKS_DROPPED
from shared.call import Call, bury
from shared.config import Settings
from shared.errors import (
    BrokerError,
    PayloadError,
    StateStoreError,
    UndeliverableError,
    UndeliveredError,
    WorkerError,
)
from shared.logging_utils import get_logger
from shared.models import NonEmpty, Payload, parse
from shared.platform_models import OrganizationKey
from shared.redis_connection import redis_client
from shared.retry_utils import jittered
from shared.webhook_protocol import events_of, idempotency_key, keys_of, sendable, signature, signing_key

log = get_logger(__name__)

MARK = "workers.mark_notifications"
_MARK_QUEUE = "notifications"
_LONGEST_WAIT = 600.0
_LATER = frozenset({408, 425, 429})  # the 4xx that a later request may not meet


class Delivery(Payload):
    """The arguments of `send_webhook_notification`. Times are in seconds; `max_retries` counts sends after the first.

    `buffer_row_ids` and `organization_id` say where the events waited at the backend, if they did.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    url: NonEmpty = Field(repr=False)
    payload: dict[str, Any] = Field(repr=False)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    timeout: float = Field(default=10, gt=0)
    max_retries: int = Field(default=0, ge=0)
    retry_delay: float = Field(default=10, ge=0)
    platform: str | None = None
    buffer_row_ids: list[str] = Field(default_factory=list)
    organization_id: OrganizationKey | None = None
    idempotency_key: str | None = None


class Marks(Payload):
    """The arguments of `workers.mark_notifications`: rows of the backend's buffer, and what became of them."""

    buffer_row_ids: list[str] = Field(default_factory=list)
    organization_id: OrganizationKey | None = None
    state: Literal["dispatched", "dead"]


def deliver(call: Call, delivery: Delivery, webhooks: Webhooks) -> dict[str, Any]:
    """Send a webhook once, and tell the backend of it.

    Raises:
        UndeliveredError: it has not reached its receiver, and is to be sent again.
        UndeliverableError: it never will.
        PayloadError: what the message holds cannot be sent.
    """
    if call.sends > delivery.max_retries:
        # It had been given up, and only that could not be written down.
        raise UndeliverableError(f"a webhook was given up after {delivery.max_retries + 1} sends", "exhausted")
    fresh = untold(call, delivery)
    if fresh is None:
        _tell(call, delivery.buffer_row_ids, delivery.organization_id, "dispatched")
        return {"status": "told_before"}
    post = post_of(call, fresh)
    most = min(delivery.timeout, call.settings.webhook_timeout)
    answer = webhooks.send(post, call.deadline.within(most, "a webhook"))
    judge(answer, delivery, call.sends, longest_wait(call.settings))
    WEBHOOKS.inc(outcome="delivered")
    log.info("webhook_delivered", status=answer.status, events=len(delivery.buffer_row_ids) or 1)
    try:
        _told(call).add(delivery.url, keys_of(delivery.payload))
    except StateStoreError as error:
        log.warning("webhook_not_remembered", reason=str(error))  # to try again would be to send it again
    _tell(call, delivery.buffer_row_ids, delivery.organization_id, "dispatched")
    return {"status": "delivered", "http_status": answer.status}


def untold(call: Call, delivery: Delivery) -> Delivery | None:
    """The webhook without the events that its receiver was told in another message; None if that is all of them."""
    told = _told(call).of(delivery.url, keys_of(delivery.payload))
    if not told:
        return delivery
    events = [event for event in events_of(delivery.payload) if event["idempotency_key"] not in told]
    log.info("events_told_before", events=len(told))
    if not events:
        return None
    return delivery.model_copy(update={"payload": {"count": len(events), "notifications": events}})


def _told(call: Call) -> ToldEvents:
    return call.app.resources.held("told_events", lambda: ToldEvents(redis_client(call.settings)))


def post_of(call: Call, delivery: Delivery) -> Post:
    """What goes over the network, the same for each delivery of a message but for the time of its signature.

    Raises:
        UndeliverableError: the address is none that can be sent to.
        PayloadError: a header cannot be sent, or the payload is no JSON.
    """
    try:
        said = message_for(delivery.platform, delivery.payload)
        body = json.dumps(said, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError):
        raise PayloadError("the payload of a webhook cannot be JSON") from None
    key = delivery.idempotency_key or idempotency_key(
        delivery.url, delivery.payload, delivery.buffer_row_ids, call.task_id
    )
    given = sendable({**delivery.headers, "Idempotency-Key": key})
    headers = {name: value for name, value in given.items() if name.lower() == "content-type"}
    credentials = {name: value for name, value in given.items() if name not in headers}
    headers["Idempotency-Key"] = key
    if call.settings.webhook_key:
        secret = signing_key(call.settings.webhook_key.reveal())
        headers |= signature(secret, key, int(time.time()), body)
    return Post(address(delivery.url), body, headers, credentials)


def judge(answer: Answer, delivery: Delivery, retries: int, longest: float) -> None:
    """Whether a webhook was delivered, by its answer; a pure function but for the jitter.

    Args:
        answer: of this send.
        delivery: how often, and with which waits, it may be sent.
        retries: how often it was sent before.
        longest: seconds that it may wait.

    Raises:
        UndeliveredError: no, and it is to be sent again after `wait`.
        UndeliverableError: no, and that is final.
    """
    status = answer.status
    if status is not None and 200 <= status < 300:
        return
    said = f"a webhook's receiver, {answer.host}, answered {answer.said}"
    if status is not None and status < 500 and status not in _LATER:
        raise UndeliverableError(said, "rejected")
    if retries >= delivery.max_retries:
        raise UndeliverableError(f"{said}; given up after {retries + 1} sends", "exhausted")
    WEBHOOKS.inc(outcome="retried")
    raise UndeliveredError(said, wait_before(delivery.retry_delay, retries, answer.retry_after, longest))


def wait_before(delay: float, retries: int, asked: float | None, longest: float) -> float:
    """Seconds until the next send: `delay`, doubled each time, less up to a half; not before the receiver asked.

    Never beyond `longest`, whoever asks.
    """
    half = min(longest, delay * 2.0 ** min(retries, 60)) / 2
    return min(longest, max(half + jittered(half, 1, half), asked or 0.0))


def longest_wait(settings: Settings) -> float:
    """Seconds that a webhook may wait to be sent again: a worker holds its message, and the broker must let it."""
    redis_broker = settings.broker_url.reveal().startswith("redis")
    return min(_LONGEST_WAIT, (settings.visibility if redis_broker else settings.consumer_timeout) / 2)


def give_up(call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None:
    """Keep the message of a webhook that will never be delivered, then tell the backend.

    In this order, since the first may have to be tried again, and the second never makes that necessary.
    """
    bury(call, error, *args, **kwargs)
    reason = error.reason if isinstance(error, UndeliverableError) else "failed"
    WEBHOOKS_DROPPED.inc(reason=reason)
    try:
        marks = parse(Marks, {**kwargs, "state": "dead"})
    except PayloadError:
        return  # the message cannot be read so far as to say whom it was from
    _tell(call, marks.buffer_row_ids, marks.organization_id, "dead")


def _tell(
    call: Call, rows: list[str], organization: OrganizationKey | None, state: Literal["dispatched", "dead"]
) -> None:
    """Tell the backend what became of its rows: now, or by a message of its own. Never by sending the webhook again."""
    if not rows or organization is None:
        return
    told = {"buffer_row_ids": rows, "organization_id": organization, "state": state}
    try:
        mark(call, parse(Marks, told))
    except WorkerError as error:
        log.warning("webhook_mark_postponed", state=state, reason=str(error))
        _tell_later(call, told)


def _tell_later(call: Call, told: dict[str, Any]) -> None:
    try:
        call.send(MARK, _MARK_QUEUE, [], told)
    except BrokerError as error:
        WEBHOOK_MARKS_DROPPED.inc()
        log.warning("webhook_mark_dropped", state=told["state"], rows=told["buffer_row_ids"], reason=str(error))


def mark(call: Call, marks: Marks) -> dict[str, Any]:
    """Tell the backend what became of rows of its buffer. Doing it again changes nothing."""
    if marks.organization_id is None:
        raise PayloadError("rows of the buffer are marked for an organization, and none is named")
    # The backend takes an organization's key where it takes its id, and a webhook's message has the key alone.
    backend = call.backend(str(marks.organization_id))
    tell = backend.mark_dispatched if marks.state == "dispatched" else backend.mark_dead
    return {"updated": tell(marks.buffer_row_ids, marks.organization_id)}
