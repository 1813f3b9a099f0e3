"""Sending webhooks at once, past the buffer."""

from __future__ import annotations

import uuid
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend import publisher
from sandbox.backend.http import InternalView, body_of, refuse
from sandbox.backend.representations import zulu

AUTHORIZATIONS = ("BEARER", "API_KEY", "CUSTOM_HEADER", "NONE")


class WebhookBody(serializers.Serializer):  # type: ignore[misc]
    """The body of `webhook/send/`; DRF writes the texts of the 400s."""

    url = serializers.URLField()
    payload = serializers.JSONField()
    authorization_type = serializers.ChoiceField(choices=AUTHORIZATIONS, default="NONE")
    authorization_key = serializers.CharField(required=False, allow_blank=True, allow_null=True)
    authorization_header = serializers.CharField(required=False, allow_blank=True, allow_null=True)
    headers = serializers.DictField(required=False, default=dict)
    timeout = serializers.IntegerField(default=30, min_value=1)
    max_retries = serializers.IntegerField(default=3, min_value=0)
    retry_delay = serializers.IntegerField(default=10, min_value=0)
    notification_id = serializers.UUIDField(required=False, allow_null=True)
    platform = serializers.CharField(required=False, allow_null=True)


def request_headers(kind: str, key: str | None, header: str | None) -> dict[str, str]:
    """The headers of a webhook, as the backend sends them in the task's arguments."""
    headers = {"Content-Type": "application/json"}
    if kind == "BEARER":
        headers["Authorization"] = f"Bearer {key}"
    elif kind == "API_KEY":
        headers["Authorization"] = str(key)
    elif kind == "CUSTOM_HEADER" and header:
        headers[header] = str(key)
    return headers


def send(body: dict[str, Any]) -> dict[str, Any]:
    """Publish one `send_webhook_notification` and say so."""
    own = request_headers(body["authorization_type"], body.get("authorization_key"), body.get("authorization_header"))
    args = [body["url"], body["payload"], {**own, **body["headers"]}, body["timeout"]]
    kwargs = {
        "max_retries": body["max_retries"],
        "retry_delay": body["retry_delay"],
        "platform": body.get("platform"),
    }
    task_id = publisher.publish(publisher.NOTIFY, publisher.NOTIFICATION_QUEUE, args, kwargs)
    notification_id = body.get("notification_id")
    return {
        "task_id": task_id,
        "notification_id": str(notification_id) if notification_id else None,
        "url": body["url"],
        "status": "queued",
        "queued_at": zulu(timezone.now()),
    }


class WebhookSend(InternalView):
    """POST `v1/webhook/send/`: 202 once the broker has the task."""

    failure = "Failed to send webhook"

    def post(self, request: Request) -> Response:
        body = WebhookBody(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(send(body.validated_data), status=202)


class WebhookBatch(InternalView):
    """POST `v1/webhook/batch/`."""

    failure = "Failed to send webhooks"

    def post(self, request: Request) -> Response:
        data = body_of(request)
        bodies = WebhookBody(data=data.get("webhooks"), many=True)
        bodies.is_valid(raise_exception=True)
        queued = [send(body) for body in bodies.validated_data]
        return Response(
            {
                "batch_id": str(uuid.uuid4()),
                "batch_name": data.get("batch_name"),
                "total_webhooks": len(queued),
                "queued_webhooks": queued,
                "failed_webhooks": [],
            },
            status=202,
        )


class WebhookStatus(InternalView):
    """GET `v1/webhook/status/{task_id}/`: PENDING for any id, since no worker keeps results."""

    def get(self, _request: Request, task_id: str) -> Response:
        return Response({**_pending(task_id), "url": "unknown", "attempts": 0})


class WebhookBatchStatus(InternalView):
    """GET `v1/webhook/batch-status/?batch_id=&task_ids=`."""

    def get(self, request: Request) -> Response:
        tasks = [item for item in request.query_params.get("task_ids", "").split(",") if item]
        if not tasks:
            raise refuse(400, "task_ids is required")
        return Response(
            {
                "batch_id": request.query_params.get("batch_id"),
                "total_tasks": len(tasks),
                "results": [_pending(item) for item in tasks],
                "summary": {"completed": 0, "failed": 0, "pending": len(tasks), "running": 0},
            }
        )


def _pending(task_id: str) -> dict[str, Any]:
    return {"task_id": task_id, "status": "PENDING", "success": False, "error_message": None}
