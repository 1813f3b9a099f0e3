"""Executions: reading, creating, and writing a status."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import transaction
from django.db.models import Sum
from django.http import Http404
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import INTERNAL_ERROR, InternalView, RefusedError, body_of, refuse, workflow_of
from sandbox.backend.models import STATUSES, TERMINAL, Execution, FileExecution, Usage, Workflow
from sandbox.backend.representations import execution_row, file_row_of_execution, workflow_definition
from sandbox.backend.tenancy import Tenant, as_uuid
from sandbox.backend.views.configs import destination_config, source_config
from sandbox.backend.views.pipelines import find

MESSAGE_LIMIT = 256
_NOT_RETRIEVED = {"error": "Failed to retrieve workflow execution"}


class StatusUpdate(serializers.Serializer):  # type: ignore[misc]
    """The body of `update_status`; DRF writes the texts of the 400s."""

    status = serializers.ChoiceField(choices=STATUSES)
    error_message = serializers.CharField(required=False, allow_blank=True)
    total_files = serializers.IntegerField(required=False, min_value=0)
    attempts = serializers.IntegerField(required=False, min_value=0)
    successful_files = serializers.IntegerField(required=False, min_value=0)
    failed_files = serializers.IntegerField(required=False, min_value=0)
    cascade_terminal_files = serializers.BooleanField(required=False, default=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        counts = {name: attrs[name] for name in ("successful_files", "failed_files") if name in attrs}
        if not counts:
            return attrs
        if "total_files" not in attrs:
            text = "total_files is required when file aggregates are provided."
            raise serializers.ValidationError({"total_files": [text]})
        for name, value in counts.items():
            if value > attrs["total_files"]:
                raise serializers.ValidationError({name: [f"{name} cannot exceed total_files."]})
        if sum(counts.values()) > attrs["total_files"]:
            text = "successful_files and failed_files together cannot exceed total_files."
            raise serializers.ValidationError({"failed_files": [text]})
        return attrs


class ExecutionDetail(InternalView):
    """GET `v1/workflow-execution/{id}/`: 404 only if the row is absent, another tenant's is a 500."""

    failure = _NOT_RETRIEVED

    def get(self, request: Request, execution_id: str) -> Response:
        row = (
            Execution.objects.select_related("workflow__organization")
            .prefetch_related("workflow__endpoints")
            .filter(pk=as_uuid(execution_id))
            .first()
        )
        if row is None:
            raise refuse(404, "WorkflowExecution not found")
        tenant = self.tenant
        if tenant.header is not None and row.workflow.organization != tenant.organization:
            raise RefusedError(500, _NOT_RETRIEVED)
        query = request.query_params
        answer = self._describe(row, tenant)
        with_files = query.get("file_execution", "true").lower() != "false"
        answer["file_executions"] = [
            file_row_of_execution(file) for file in (row.files.order_by("file_name") if with_files else [])
        ]
        cost = query.get("include_cost", "").lower() == "true"
        answer["aggregated_usage_cost"] = _cost(row) if cost else None
        return Response(answer)

    @staticmethod
    def _describe(row: Execution, tenant: Tenant) -> dict[str, Any]:
        workflow: Workflow = row.workflow
        # A request without the header sees the execution, but neither its pipeline nor its ends.
        api = workflow.workflow_type == "API"
        pipeline = find(tenant, row.pipeline_id, api_first=api) if row.pipeline_id else None
        known = tenant.organization is not None
        ends = workflow.ends() if known else {}
        return {
            "execution": execution_row(row, pipeline.id if pipeline else None, row.tags if known else []),
            "workflow_definition": workflow_definition(workflow),
            "source_config": source_config(row, pipeline, ends.get("SOURCE")),
            "destination_config": destination_config(ends.get("SOURCE"), ends.get("DESTINATION")),
            "organization_context": {
                "organization_id": workflow.organization.organization_id,
                "organization_name": workflow.organization.display_name,
                "settings": {},
            },
        }


def _cost(row: Execution) -> float | None:
    total: float | None = Usage.objects.filter(execution_id=row.id).aggregate(cost=Sum("cost_in_dollars"))["cost"]
    return total


class ExecutionList(InternalView):
    """GET `v1/workflow-execution/?workflow_id=&status__in=`: newest first. A malformed UUID gets the text page."""

    def get(self, request: Request) -> Response:
        rows = self.tenant.executions().order_by("-created_at")
        query = request.query_params
        if query.get("workflow_id"):
            rows = rows.filter(workflow_id=as_uuid(query["workflow_id"]))
        if query.get("status__in"):
            rows = rows.filter(status__in=query["status__in"].split(","))
        return Response([execution_row(row, row.pipeline_id, row.tags) for row in rows])


class ExecutionStatus(InternalView):
    """POST `v1/workflow-execution/{id}/update_status/`: no guard on terminal states, but for rows with a queue
    message id."""

    failure = "Failed to update workflow execution status"

    def post(self, request: Request, execution_id: str) -> Response:
        update = StatusUpdate(data=request.data)
        update.is_valid(raise_exception=True)
        values: dict[str, Any] = update.validated_data
        # Locked, so that two writers of a guarded row cannot both find it open.
        with transaction.atomic():
            rows = self.tenant.executions().select_for_update(of=("self",))
            row = rows.filter(pk=as_uuid(execution_id)).first()
            if row is None:
                # A 500 in the real backend too, under the name its table has there.
                raise Http404("No WorkflowExecution matches the given query.")
            if row.queue_message_id is not None and row.status in TERMINAL and row.status != values["status"]:
                answer = {"status": "skipped", "reason": "already_final"}
                return Response({**answer, "execution_id": execution_id, "new_status": row.status})
            _apply(row, values)
        return Response({"status": "updated", "execution_id": execution_id, "new_status": values["status"]})


def _apply(row: Execution, values: dict[str, Any]) -> None:
    row.status = values["status"]
    for name in ("total_files", "attempts", "successful_files", "failed_files"):
        if name in values:
            setattr(row, name, values[name])
    if "error_message" in values:
        row.error_message = shorten(values["error_message"])
    if row.status in TERMINAL:
        row.execution_time = elapsed(row)
    row.save()
    if values["cascade_terminal_files"] and row.status in TERMINAL:
        unfinished = FileExecution.objects.filter(execution=row).exclude(status__in=TERMINAL)
        unfinished.update(status=row.status, execution_error=row.error_message, modified_at=timezone.now())


def shorten(message: str) -> str:
    """Cut to the column's 256 characters, as the real backend cuts it."""
    return message if len(message) <= MESSAGE_LIMIT else f"{message[: MESSAGE_LIMIT - 3]}..."


def elapsed(row: Execution | FileExecution) -> float:
    """Seconds since the row was made: what the real backend stores as execution time, whatever the body says."""
    seconds: float = (timezone.now() - row.created_at).total_seconds()
    return round(seconds, 3)


class ExecutionCreate(InternalView):
    """POST `v1/workflow-manager/execution/create/`. Without `pipeline_id` the real one breaks, so this one does."""

    failure = INTERNAL_ERROR

    def post(self, request: Request) -> Response:
        body = body_of(request)
        workflow = workflow_of(self.tenant, body["workflow_id"])
        pipeline_id = body["pipeline_id"]
        row = Execution.objects.create(
            workflow=workflow,
            pipeline_id=as_uuid(pipeline_id) if pipeline_id else None,
            execution_mode=body.get("mode", "QUEUE"),
            execution_method="SCHEDULED" if body.get("scheduled") else "DIRECT",
            execution_type="STEP" if body.get("single_step") else "COMPLETE",
            execution_log_id=body.get("log_events_id") or pipeline_id or uuid.uuid4(),
            total_files=body.get("total_files") or 0,
        )
        return Response(
            {
                "execution_id": str(row.id),
                "status": row.status,
                "execution_log_id": str(row.execution_log_id),
                "transport": "celery",
            }
        )


class ExecutionBroken(InternalView):
    """GET `v1/workflow-manager/execution/{id}/`: always 500 in the real backend, `metrics` with it."""

    def get(self, _request: Request, **_path: str) -> Response:
        raise RefusedError(500, INTERNAL_ERROR)
