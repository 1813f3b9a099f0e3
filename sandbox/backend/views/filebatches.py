"""File executions under `v1/workflow-manager/`: batches, stubs, and the search for active duplicates."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import DatabaseError, transaction
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend import files, publisher
from sandbox.backend.http import InternalView, RefusedError, body_of, refuse
from sandbox.backend.models import ACTIVE, PENDING, Execution, FileExecution
from sandbox.backend.representations import zulu
from sandbox.backend.tenancy import as_uuid


class FileBatchBody(serializers.Serializer):  # type: ignore[misc]
    """The body of `file-batch/`."""

    workflow_execution_id = serializers.UUIDField()
    files = serializers.ListField(child=serializers.DictField(), allow_empty=False)
    is_api = serializers.BooleanField(required=False, default=False)


class FileBatch(InternalView):
    """POST `v1/workflow-manager/file-batch/`: 201 names rows that a database error undid, as the real one does."""

    failure = "Failed to create file batch"

    def post(self, request: Request) -> Response:
        body = FileBatchBody(data=request.data)
        body.is_valid(raise_exception=True)
        wanted: list[dict[str, Any]] = body.validated_data["files"]
        execution_id = body.validated_data["workflow_execution_id"]
        execution = self.tenant.executions().filter(pk=execution_id).first()
        if execution is None:
            raise refuse(404, "Workflow execution not found")
        created: list[dict[str, Any]] = []
        skipped: list[dict[str, Any]] = []
        with transaction.atomic():
            for file in wanted:
                try:
                    created.append(_create(execution, file))
                except DatabaseError as error:
                    skipped.append({"file_name": file.get("file_name"), "error": str(error)})
        return Response(
            {
                "batch_id": str(uuid.uuid4()),
                "workflow_execution_id": str(execution_id),
                "total_files": len(wanted),
                "created_file_executions": created,
                "skipped_files": skipped,
            },
            status=201,
        )


def _create(execution: Execution, file: dict[str, Any]) -> dict[str, Any]:
    values = files.columns(file)
    values |= {"file_size": values["file_size"] or 0, "mime_type": values["mime_type"] or ""}
    values["fs_metadata"] = values["fs_metadata"] or {}
    files.check_lengths(values["file_name"])
    row = FileExecution.objects.create(execution=execution, status=PENDING, **values)
    return {"id": str(row.id), "file_name": row.file_name, "status": row.status}


class FileBatchSubmit(InternalView):
    """POST `v1/workflow-manager/file-batch/submit/`: a batch that came without an orchestrator."""

    failure = "Failed to submit file batch"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        file_data = body.get("file_data") or {}
        data = {"files": body.get("files") or [], "file_data": file_data}
        execution = self.tenant.executions().filter(pk=as_uuid(file_data.get("execution_id"))).first()
        if execution is None:
            raise refuse(404, "Workflow execution not found")
        api = execution.workflow.workflow_type == "API"
        queue = "api_file_processing" if api else "file_processing"
        task_id = publisher.publish(publisher.PROCESS_BATCH, queue, [data])
        return Response(
            {
                "success": True,
                "batch_id": body.get("batch_id"),
                "celery_task_id": task_id,
                "message": "Batch submitted for processing",
            }
        )


class FileGetOrCreate(InternalView):
    """POST `v1/workflow-manager/file-execution/`: the older twin, which stores the path of an API file."""

    failure = "Failed to get or create file execution"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        identifier = body.get("execution_id")
        execution = self.tenant.executions().filter(pk=as_uuid(identifier)).first()
        if execution is None:
            raise refuse(404, f"Workflow execution {identifier} not found")
        values = files.columns(body.get("file_hash") or {})
        values["status"] = body.get("status") or PENDING
        key = {name: values.pop(name) for name in ("file_hash", "file_path")}
        row, created = FileExecution.objects.get_or_create(execution=execution, **key, defaults=values)
        return Response(
            {
                "id": str(row.id),
                "file_name": row.file_name,
                "file_path": row.file_path,
                "status": row.status,
                "created": created,
            }
        )


class FileBatchStub(InternalView):
    """The two batch routes under `workflow-manager/file-execution/` that write nothing in the real backend."""

    answer: Any = None  # set by the routes

    def post(self, _request: Request) -> Response:
        if self.tenant.header is None:
            raise refuse(400, "X-Organization-ID header is required")
        return Response({**self.answer, "organization_id": self.tenant.name})


class CheckActive(InternalView):
    """POST `v1/workflow-manager/file-execution/check-active`: which files another execution is processing now."""

    failure = "Failed to check active files"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        workflow_id, wanted = body.get("workflow_id"), body.get("files")
        uuids = body.get("provider_file_uuids")
        if not workflow_id or not (wanted or uuids):
            raise refuse(400, "workflow_id and files (or provider_file_uuids) are required")
        if wanted:
            pairs = [(_uuid_of(item), item.get("path")) for item in wanted]
        else:
            pairs = [(item, None) for item in uuids or []]
        active = self._active(workflow_id, [pair[0] for pair in pairs], body.get("current_execution_id"))
        found: dict[str, list[dict[str, Any]]] = {}
        identifiers: list[str] = []
        for identifier, path in pairs:
            rows = [row for row in active if row.provider_file_uuid == identifier and path in {None, row.file_path}]
            if rows:
                found.setdefault(identifier, []).extend(_active_row(row) for row in rows)
                identifiers.append(identifier if path is None else f"{identifier}:{path}")
        return Response(
            {
                "active_files": found,
                "active_uuids": list(found),
                "active_identifiers": identifiers,
                "total_checked": len(pairs),
                "total_active": len(identifiers),
                "cache_stats": {"db_queries": 2},
            }
        )

    def _active(self, workflow_id: Any, uuids: list[str], current: Any) -> list[FileExecution]:
        rows = self.tenant.files().filter(
            execution__workflow_id=as_uuid(workflow_id), status__in=ACTIVE, provider_file_uuid__in=uuids
        )
        return list(rows.exclude(execution_id=as_uuid(current)) if current else rows)


def _uuid_of(item: dict[str, Any]) -> str:
    if not item.get("uuid"):
        raise RefusedError(400, {"error": "Each file must have 'uuid' field"})
    return str(item["uuid"])


def _active_row(row: FileExecution) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "workflow_execution_id": str(row.execution_id),
        "file_name": row.file_name,
        "file_path": row.file_path,
        "status": row.status,
        "created_at": zulu(row.created_at),
        "provider_file_uuid": row.provider_file_uuid,
    }
