"""The notification buffer: events wait here and go out clubbed, one task per webhook.

PENDING, until due; DISPATCHING, once its task is published; DISPATCHED or DEAD_LETTER, when the worker says so. A row
enqueued twice is kept twice: an at-most-once sender is the workers' promise, and this is where it is counted.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend import publisher
from sandbox.backend.http import INTERNAL_ERROR_MESSAGE, InternalView, RefusedError, body_of, log
from sandbox.backend.models import PENDING, BufferRow, Notification
from sandbox.backend.tenancy import as_uuid
from sandbox.backend.views.basics import configured
from sandbox.backend.views.sending import request_headers

DISPATCHING = "DISPATCHING"
DEAD_LETTER = "DEAD_LETTER"
MAX_ATTEMPTS = 5
TIMEOUT_SECONDS = 10
RETRY_DELAY_SECONDS = 10
RECLAIM_AFTER = timedelta(minutes=1)
_NEEDED = ("notification_id", "pipeline_id", "pipeline_name", "status", "platform", "execution_id")
_FINAL = {"COMPLETED", "SUCCESS", "ERROR", "FAILURE", "STOPPED"}


class Enqueue(InternalView):
    """POST `v1/webhook/buffer/enqueue/`: 201 with the row's id, or 200 with null for an event nobody wants."""

    failure = INTERNAL_ERROR_MESSAGE

    def post(self, request: Request) -> Response:
        body = body_of(request)
        missing = [name for name in _NEEDED if name not in body]
        if missing:
            raise RefusedError(400, {"status": "error", "message": f"Missing required fields: {', '.join(missing)}"})
        row = Notification.objects.select_related("pipeline__organization", "api__organization").get(
            pk=as_uuid(body["notification_id"])
        )
        if row.notify_on_failures and body["status"] not in _FINAL - {"COMPLETED", "SUCCESS"}:
            log.info("notification %s is for failures only: %s is not stored", row.id, body["status"])
            return Response({"status": "ok", "buffer_row_id": None})
        organization = (row.pipeline or row.api).organization
        wait = float(configured(organization, "NOTIFICATION_CLUB_INTERVAL"))
        execution_id = body["execution_id"]
        stored = BufferRow.objects.create(
            notification=row,
            organization=organization,
            execution_id=as_uuid(execution_id) if execution_id else None,
            payload=_payload(body),
            due_at=timezone.now() + timedelta(seconds=wait),
        )
        return Response({"status": "success", "buffer_row_id": str(stored.id)}, status=201)


def _payload(body: dict[str, Any]) -> dict[str, Any]:
    names = ("type", "pipeline_id", "pipeline_name", "status", "execution_id", "error_message", "timestamp")
    payload = {name: body[name] for name in names if body.get(name) is not None}
    return {**payload, **(body.get("additional_data") or {})}


class Process(InternalView):
    """POST `v1/webhook/buffer/process/` `{}`: sends what is due, for all organizations."""

    failure = INTERNAL_ERROR_MESSAGE

    def post(self, _request: Request) -> Response:
        reclaimed = _reclaim()
        groups = _claim_due()
        sent = dead = sent_groups = 0
        for rows in groups.values():
            if _dispatch(rows):
                sent_groups += 1
                sent += len(rows)
            else:
                dead += _put_back(rows)
        return Response(
            {
                "status": "success",
                "dispatched_groups": sent_groups,
                "dispatched_rows": sent,
                "dead_letter_rows": dead,
                "reclaimed_rows": reclaimed,
                "gc_deleted_rows": 0,
            }
        )


def _reclaim() -> int:
    """Rows whose process died between claiming and publishing."""
    before = timezone.now() - RECLAIM_AFTER
    lost = BufferRow.objects.filter(state=DISPATCHING, published_at=None, modified_at__lt=before)
    count: int = lost.update(state=PENDING)
    return count


def _claim_due() -> dict[Any, list[BufferRow]]:
    groups: dict[Any, list[BufferRow]] = defaultdict(list)
    with transaction.atomic():
        due = BufferRow.objects.filter(state=PENDING, due_at__lte=timezone.now())
        rows = list(due.select_related("notification").select_for_update(of=("self",)).order_by("created_at"))
        ids = [row.id for row in rows]
        BufferRow.objects.filter(pk__in=ids).update(state=DISPATCHING, modified_at=timezone.now())
    for row in rows:
        groups[row.notification_id].append(row)
    return groups


def _dispatch(rows: list[BufferRow]) -> bool:
    """One task for the events of one webhook. A single event is sent as it is, several as a list."""
    target: Notification = rows[0].notification
    events = [row.payload for row in rows]
    payload = events[0] if len(events) == 1 else {"count": len(events), "notifications": events}
    headers = request_headers(target.authorization_type, target.authorization_key, target.authorization_header)
    kwargs = {
        "max_retries": target.max_retries,
        "retry_delay": RETRY_DELAY_SECONDS,
        "platform": target.platform,
        # With these the worker can report back to `mark/dispatched/` and `mark/dead-letter/`.
        "buffer_row_ids": [str(row.id) for row in rows],
        "organization_id": rows[0].organization_id,
    }
    args = [target.url, payload, headers, TIMEOUT_SECONDS]
    try:
        publisher.publish(publisher.NOTIFY, publisher.NOTIFICATION_QUEUE, args, kwargs)
    except publisher.PublishError as error:
        log.warning("%d notifications stay in the buffer: %s", len(rows), error)
        return False
    ids = [row.id for row in rows]
    BufferRow.objects.filter(pk__in=ids).update(published_at=timezone.now())
    return True


def _put_back(rows: list[BufferRow]) -> int:
    dead = 0
    for row in rows:
        row.attempts += 1
        row.state = DEAD_LETTER if row.attempts >= MAX_ATTEMPTS else PENDING
        dead += row.state == DEAD_LETTER
        row.save(update_fields=["attempts", "state", "modified_at"])
    return dead


class Mark(InternalView):
    """POST `v1/webhook/buffer/mark/{dispatched,dead-letter}/`: only rows that are being sent are changed."""

    failure = INTERNAL_ERROR_MESSAGE
    state = ""

    def post(self, request: Request) -> Response:
        body = body_of(request)
        if not (body.get("buffer_row_ids") and body.get("organization_id")):
            message = "buffer_row_ids and organization_id are required"
            raise RefusedError(400, {"status": "error", "message": message})
        rows = BufferRow.objects.filter(
            pk__in=[as_uuid(item) for item in body["buffer_row_ids"]],
            organization_id=int(body["organization_id"]),
            state=DISPATCHING,
        )
        return Response({"status": "success", "updated": rows.update(state=self.state)})
