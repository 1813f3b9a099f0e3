"""Pipelines and API deployments, which the internal API often serves under one path."""

from __future__ import annotations

import uuid
from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import INTERNAL_ERROR_MESSAGE, InternalView, RefusedError, body_of, refuse
from sandbox.backend.models import ApiDeployment, Pipeline
from sandbox.backend.representations import deployment, deployment_as_pipeline, pipeline
from sandbox.backend.tenancy import Tenant, as_uuid

# Execution status -> pipeline status.
PIPELINE_STATUS = {
    "COMPLETED": "SUCCESS",
    "ERROR": "FAILURE",
    "STOPPED": "FAILURE",
    "EXECUTING": "INPROGRESS",
    "PENDING": "YET_TO_START",
}


def find(tenant: Tenant, identifier: Any, *, api_first: bool = False) -> Pipeline | ApiDeployment | None:
    """A pipeline or an API deployment of the tenant: their ids share one space. `api_first` is a guess that saves a
    query."""
    key = as_uuid(identifier)
    kinds = [tenant.deployments, tenant.pipelines] if api_first else [tenant.pipelines, tenant.deployments]
    for rows in kinds:
        row: Pipeline | ApiDeployment | None = rows().filter(pk=key).first()
        if row is not None:
            return row
    return None


class PipelineDetail(InternalView):
    """GET and PUT `v1/pipeline/{id}/`. The status of a PUT is stored unchecked."""

    failure = INTERNAL_ERROR_MESSAGE

    def get(self, _request: Request, pipeline_id: str) -> Response:
        row = find(self.tenant, pipeline_id)
        if row is None:
            raise RefusedError(404, {"status": "error", "message": "Pipeline not found"})
        shown = pipeline(row) if isinstance(row, Pipeline) else deployment_as_pipeline(row)
        return Response({"status": "success", "pipeline": shown})

    def put(self, request: Request, pipeline_id: str) -> Response:
        body = body_of(request)
        row = find(self.tenant, pipeline_id)
        if row is None:
            raise RefusedError(404, {"status": "error", "message": "Pipeline or API deployment not found"})
        status, is_end = str(body["status"]), bool(body.get("is_end", False))
        answer: dict[str, Any] = {"status": "success", "pipeline_id": pipeline_id, "new_status": status}
        if isinstance(row, ApiDeployment):
            return Response({**answer, "message": "API deployment status updated successfully"})
        _set_status(row.id, status, is_end)
        return Response({**answer, "is_end": is_end, "message": "Pipeline status updated successfully"})


def _set_status(pipeline_id: uuid.UUID, status: str, is_end: bool) -> None:
    now = timezone.now()
    values: dict[str, Any] = {"last_run_status": status[:32], "modified_at": now}
    if is_end:
        values["last_run_time"] = now
    Pipeline.objects.filter(pk=pipeline_id).update(**values)


class PipelineStatus(InternalView):
    """POST `v1/workflow-manager/pipeline/{id}/status/` `{execution_id, status}`."""

    failure = "Failed to update pipeline status"

    def post(self, request: Request, pipeline_id: str) -> Response:
        body = body_of(request)
        row = self.tenant.pipelines().filter(pk=as_uuid(pipeline_id)).first()
        if row is None:
            raise refuse(404, "Pipeline not found")
        status = str(body["status"])
        _set_status(row.id, PIPELINE_STATUS.get(status, status), is_end=status in {"COMPLETED", "ERROR", "STOPPED"})
        return Response(
            {
                "status": "updated",
                "pipeline_id": pipeline_id,
                "execution_id": body.get("execution_id"),
                "new_status": status,
            }
        )


class PipelineType(InternalView):
    """GET `v1/workflow-manager/pipeline-type/{id}/`."""

    failure = "Failed to determine pipeline type"

    def get(self, _request: Request, pipeline_id: str) -> Response:
        row = find(self.tenant, pipeline_id)
        if row is None:
            raise refuse(404, "Pipeline not found", detail=_nowhere(pipeline_id))
        answer: dict[str, Any] = {"pipeline_id": pipeline_id, "workflow_id": str(row.workflow_id)}
        if isinstance(row, ApiDeployment):
            more: dict[str, Any] = {
                "pipeline_type": "API",
                "source": "api_deployment",
                "display_name": row.display_name,
                "is_active": row.is_active,
            }
        else:
            more = {
                "pipeline_type": row.pipeline_type,
                "source": "pipeline",
                "pipeline_name": row.name,
                "active": row.active,
                "scheduled": row.scheduled,
            }
        return Response({**answer, **more})


class PipelineName(InternalView):
    """GET `v1/workflow-manager/pipeline-name/{id}/`."""

    failure = "Failed to get pipeline name"

    def get(self, _request: Request, pipeline_id: str) -> Response:
        row = find(self.tenant, pipeline_id)
        if row is None:
            raise refuse(404, "Pipeline not found", detail=_nowhere(pipeline_id), pipeline_id=pipeline_id)
        answer: dict[str, Any] = {"pipeline_id": pipeline_id}
        if isinstance(row, ApiDeployment):
            answer |= {
                "pipeline_name": row.api_name,
                "pipeline_type": "API",
                "source": "api_deployment",
                "display_name": row.display_name,
            }
        else:
            answer |= {
                "pipeline_name": row.name,
                "pipeline_type": row.pipeline_type,
                "source": "pipeline",
                "workflow_id": str(row.workflow_id),
            }
        return Response(answer)


def _nowhere(pipeline_id: str) -> str:
    return f"Pipeline {pipeline_id} not found in APIDeployment or Pipeline models"


class DeploymentDetail(InternalView):
    """GET `v1/api-deployments/{id}/`: the one route that lets only UUIDs through, so others get the 404 page."""

    failure = "Failed to get API deployment"

    def get(self, _request: Request, api_id: uuid.UUID) -> Response:
        row = self.tenant.deployments().filter(pk=api_id).first()
        if row is None:
            raise refuse(404, f"APIDeployment with ID {api_id} not found")
        return Response({"status": "success", "pipeline": {**deployment(row), "shared_groups": []}})
