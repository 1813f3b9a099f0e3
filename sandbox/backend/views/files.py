"""File executions under `v1/file-execution/` ."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend import files
from sandbox.backend.http import InternalView, body_of, refuse
from sandbox.backend.models import COMPLETED, STATUSES, TERMINAL, Execution, FileExecution
from sandbox.backend.representations import file_row
from sandbox.backend.tenancy import Tenant, as_uuid
from sandbox.backend.views.batches import Batch, valid_uuid
from sandbox.backend.views.executions import elapsed


class FileStatusUpdate(serializers.Serializer):  # type: ignore[misc]
    """The body of a file's status; `execution_time` is taken and ignored, null is refused."""

    status = serializers.ChoiceField(choices=STATUSES)
    error_message = serializers.CharField(required=False, allow_blank=True)
    result = serializers.JSONField(required=False)


def owned_execution(tenant: Tenant, body: dict[str, Any]) -> Execution:
    """The execution a file belongs to: 400 without its id, 404 when it is not the tenant's."""
    identifier = body.get("execution_id")
    if not identifier:
        raise refuse(400, "execution_id is required")
    row: Execution | None = tenant.executions().filter(pk=as_uuid(identifier)).first()
    if row is None:
        raise refuse(404, "WorkflowExecution not found or access denied")
    return row


class FileCollection(InternalView):
    """POST: get or create, always 201. GET: the rows of an execution, oldest first."""

    def get(self, request: Request) -> Response:
        rows = self.tenant.files().order_by("created_at")
        query = request.query_params
        if query.get("execution_id"):
            rows = rows.filter(execution_id=as_uuid(query["execution_id"]))
        if query.get("workflow_id"):
            rows = rows.filter(execution__workflow_id=as_uuid(query["workflow_id"]))
        for name in ("file_path", "provider_file_uuid", "file_hash", "status"):
            if query.get(name):
                rows = rows.filter(**{name: query[name]})
        return Response([file_row(row) for row in rows])

    def post(self, request: Request) -> Response:
        self.failure = "Failed to get/create file execution"
        body = body_of(request)
        file = body.get("file_hash") or {}
        row = files.get_or_create(owned_execution(self.tenant, body), file)
        # The path is the caller's, though an API file's is not stored.
        return Response({**file_row(row), "file_path": file.get("file_path")}, status=201)


class FileDetail(InternalView):
    """GET `v1/file-execution/{id}/`: a malformed UUID gets the text page."""

    def get(self, _request: Request, file_id: str) -> Response:
        return Response(file_row(_file(self.tenant, file_id)))


class FileStatus(InternalView):
    """POST `v1/file-execution/{id}/status/`: a terminal status may be overwritten; the worker is the guard."""

    failure = "Failed to update file execution status"
    failure_of_api = False

    def post(self, request: Request, file_id: str) -> Response:
        update = FileStatusUpdate(data=request.data)
        update.is_valid(raise_exception=True)
        values = update.validated_data
        row = _file(self.tenant, file_id)
        write_status(row, values["status"], values.get("error_message"))
        if "result" in values:
            row.result = values["result"]
            row.save(update_fields=["result"])
        shown = {name: values[name] for name in ("status", "error_message", "result") if name in values}
        return Response({"status": "updated", "file_execution_id": file_id, "data": shown})


def write_status(row: FileExecution, status: str, error: str | None) -> None:
    """One UPDATE: status, error and, at the end, the time since the row was made."""
    row.status = status
    row.execution_error = error or None
    if status in TERMINAL:
        row.execution_time = elapsed(row)
    row.save(update_fields=["status", "execution_error", "execution_time", "modified_at"])


def _file(tenant: Tenant, identifier: str) -> FileExecution:
    row: FileExecution | None = tenant.files().filter(pk=as_uuid(identifier)).first()
    if row is None:
        raise NotFound(f"No file execution found with ID {identifier}")
    return row


class FileHash(InternalView):
    """PATCH `v1/file-execution/{id}/update_hash/`."""

    failure = "Failed to update file hash"
    failure_of_api = False

    def patch(self, request: Request, file_id: str) -> Response:
        body = body_of(request)
        names = [name for name in ("file_hash", "fs_metadata", "mime_type") if body.get(name)]
        if not names:
            raise refuse(400, "file_hash, fs_metadata, or mime_type is required")
        row = _file(self.tenant, file_id)
        for name in names:
            setattr(row, name, body[name])
        row.save()
        return Response({"status": "updated", "file_execution_id": file_id, "data": file_row(row)})


class _FileBatch(Batch):
    """A batch whose items name file executions."""

    id_name = "file_execution_id"

    def row(self, item: dict[str, Any], needed: str) -> FileExecution:
        """The row of an item that must say `needed` too."""
        if not item.get("file_execution_id") or not item.get(needed):
            raise refuse(400, f"file_execution_id and {needed} are required")
        row: FileExecution | None = self.tenant.files().filter(pk=valid_uuid(item["file_execution_id"])).first()
        if row is None:
            raise refuse(404, "WorkflowFileExecution not found")
        return row


class FilesCreate(Batch):
    """POST `v1/file-execution/batch-create/`."""

    failure = "Failed to create file executions"
    list_name = "file_executions"
    done_name = "successful_creations"
    failed_name = "failed_creations"
    success = 201

    def one(self, item: dict[str, Any]) -> dict[str, Any]:
        file = item.get("file_hash") or {}
        execution = owned_execution(self.tenant, item)
        files.check_lengths(file.get("file_name") or "")
        row = files.get_or_create(execution, file)
        path = file.get("file_path")
        return {"id": str(row.id), "file_name": row.file_name, "file_path": path, "status": row.status}

    def named(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"file_name": (item.get("file_hash") or {}).get("file_name")}


class FilesStatus(_FileBatch):
    """POST `v1/file-execution/batch-status-update/`."""

    failure = "Failed to update file statuses"
    list_name = "status_updates"

    def one(self, item: dict[str, Any]) -> dict[str, Any]:
        row = self.row(item, "status")
        if item["status"] not in STATUSES:
            raise refuse(400, f"'{item['status']}' is not a valid ExecutionStatus")
        write_status(row, item["status"], item.get("error_message"))
        return {"file_execution_id": str(row.id), "status": row.status, "file_name": row.file_name}


class FilesHash(_FileBatch):
    """POST `v1/file-execution/batch-hash-update/`."""

    failure = "Failed to update file hashes"
    list_name = "hash_updates"

    def one(self, item: dict[str, Any]) -> dict[str, Any]:
        row = self.row(item, "file_hash")
        row.file_hash = item["file_hash"]
        row.fs_metadata = item.get("fs_metadata", row.fs_metadata)
        row.save()
        shown = f"{row.file_hash[:16]}..."
        return {"file_execution_id": str(row.id), "file_hash": shown, "file_name": row.file_name}


class FileMetrics(InternalView):
    """GET `v1/file-execution/metrics/?execution_id=`."""

    def get(self, request: Request) -> Response:
        rows = self.tenant.files()
        filters = {"workflow_id": "execution__workflow_id", "execution_id": "execution_id", "status": "status"}
        for name, column in filters.items():
            if request.query_params.get(name):
                rows = rows.filter(**{column: request.query_params[name]})
        found = list(rows)
        statuses = [row.status for row in found]
        times = [row.execution_time for row in found if row.execution_time is not None]
        sizes = [row.file_size for row in found if row.file_size is not None]
        given = {name: request.query_params.get(name) for name in ("start_date", "end_date", *filters)}
        return Response(
            {
                "total_file_executions": len(found),
                "status_breakdown": {status: statuses.count(status) for status in sorted(set(statuses))},
                "success_rate": statuses.count(COMPLETED) / len(found) if found else 0.0,
                "average_execution_time": sum(times) / len(times) if times else None,
                "total_file_size": sum(sizes),
                "average_file_size": sum(sizes) / len(sizes) if sizes else None,
                "filters_applied": given,
            }
        )
