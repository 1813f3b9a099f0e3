"""Notifications: which there are for a pipeline, an API deployment or an execution."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import INTERNAL_ERROR_MESSAGE, InternalView, RefusedError
from sandbox.backend.models import ERROR, STOPPED, ApiDeployment, Execution, Notification, Pipeline
from sandbox.backend.representations import notification, zulu
from sandbox.backend.tenancy import as_uuid
from sandbox.backend.views.pipelines import find


class PipelineNotifications(InternalView):
    """GET `v1/webhook/pipeline/{id}/notifications/?execution_id=`: takes the id of an API deployment too."""

    failure = INTERNAL_ERROR_MESSAGE

    def get(self, request: Request, pipeline_id: str) -> Response:
        row = find(self.tenant, pipeline_id)
        if row is None:
            raise RefusedError(404, {"status": "error", "message": "Pipeline or API deployment not found"})
        api = isinstance(row, ApiDeployment)
        answer = {
            "status": "success",
            "pipeline_id": pipeline_id,
            "pipeline_name": row.api_name if api else row.name,
            "pipeline_type": "API" if api else row.pipeline_type,
        }
        return Response({**answer, **_to_send(row, request.query_params.get("execution_id"))})


class ApiNotifications(InternalView):
    """GET `v1/webhook/api/{id}/notifications/?execution_id=`: an unknown id is a 500."""

    failure = INTERNAL_ERROR_MESSAGE

    def get(self, request: Request, api_id: str) -> Response:
        row = self.tenant.deployments().get(pk=as_uuid(api_id))
        answer = {
            "status": "success",
            "api_id": api_id,
            "api_name": row.api_name,
            "display_name": row.display_name,
        }
        return Response({**answer, **_to_send(row, request.query_params.get("execution_id"))})


def _to_send(row: Pipeline | ApiDeployment, execution_id: str | None) -> dict[str, Any]:
    """Rows for failures only are left out unless the execution failed; without an execution all are shown."""
    rows = Notification.objects.filter(is_active=True).order_by("created_at")
    rows = rows.filter(api=row) if isinstance(row, ApiDeployment) else rows.filter(pipeline=row)
    if execution_id is None:
        return {"notifications": [notification(item) for item in rows], "execution_counts": {}}
    execution = Execution.objects.filter(pk=as_uuid(execution_id), pipeline_id=row.id).first()
    if not _failed(execution):
        rows = rows.filter(notify_on_failures=False)
    return {"notifications": [notification(item) for item in rows], "execution_counts": _counts(execution)}


def _failed(execution: Execution | None) -> bool:
    if execution is None:
        return False
    return execution.status in {ERROR, STOPPED} or bool(execution.failed_files)


def _counts(execution: Execution | None) -> dict[str, int]:
    if execution is None:
        return {}
    return {
        "total_files": execution.total_files,
        "successful_files": execution.successful_files or 0,
        "failed_files": execution.failed_files or 0,
    }


class PipelineData(InternalView):
    """GET `v1/webhook/pipeline/{id}/`: an unknown id is a 500."""

    failure = INTERNAL_ERROR_MESSAGE

    def get(self, _request: Request, pipeline_id: str) -> Response:
        row = self.tenant.pipelines().get(pk=as_uuid(pipeline_id))
        return Response(
            {
                "status": "success",
                "pipeline_id": pipeline_id,
                "pipeline_name": row.name,
                "pipeline_type": row.pipeline_type,
                "last_run_status": row.last_run_status,
            }
        )


class ApiData(InternalView):
    """GET `v1/webhook/api/{id}/`."""

    failure = INTERNAL_ERROR_MESSAGE

    def get(self, _request: Request, api_id: str) -> Response:
        row = self.tenant.deployments().get(pk=as_uuid(api_id))
        shown = {"api_name": row.api_name, "display_name": row.display_name, "is_active": row.is_active}
        return Response({"status": "success", "api_id": api_id, **shown})


# What Django says when a table is asked for a column it has not; these are the real table's.
_FIELDS = (
    "api, api_id, authorization_header, authorization_key, authorization_type, buffer_rows, created_at, id, is_active, "
    "max_retries, modified_at, name, notification_type, notify_on_failures, pipeline, pipeline_id, platform, url"
)


class _Unscoped(InternalView):
    """Routes that break in the real backend as soon as an organization is named: its notifications have none."""

    def refuse_tenant(self) -> None:
        if self.tenant.header is None:
            return
        raise ValueError(f"Cannot resolve keyword 'organization' into field. Choices are: {_FIELDS}")


class WebhookConfiguration(_Unscoped):
    """GET `v1/webhook/{id}/configuration/`."""

    failure = "Failed to get webhook configuration"

    def get(self, _request: Request, notification_id: str) -> Response:
        self.refuse_tenant()
        row = Notification.objects.get(pk=as_uuid(notification_id))
        keys = ("url", "authorization_type", "authorization_key", "authorization_header", "max_retries", "is_active")
        return Response({"notification_id": str(row.id), **{key: getattr(row, key) for key in keys}})


class WebhookList(_Unscoped):
    """GET `v1/webhook/?pipeline_id=`: empty, because pipelines are not seen without an organization."""

    failure = "Failed to list notifications"

    def get(self, _request: Request) -> Response:
        self.refuse_tenant()
        return Response({"count": 0, "notifications": []})


class WebhookDetail(_Unscoped):
    """GET `v1/webhook/{id}/`."""

    failure = "Failed to get notification"

    def get(self, _request: Request, notification_id: str) -> Response:
        self.refuse_tenant()
        row = Notification.objects.get(pk=as_uuid(notification_id))
        shown = {key: value for key, value in notification(row).items() if key != "notify_on_failures"}
        return Response(
            {
                **shown,
                "created_at": zulu(row.created_at),
                "modified_at": zulu(row.modified_at),
                "pipeline": str(row.pipeline_id) if row.pipeline_id else None,
                "api": str(row.api_id) if row.api_id else None,
            }
        )
