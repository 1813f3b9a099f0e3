"""File history under `v1/file-history/` and `v1/workflow-manager/file-history/`."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend import histories
from sandbox.backend.http import InternalView, RefusedError, body_of, refuse, workflow_of
from sandbox.backend.models import COMPLETED, FileHistory
from sandbox.backend.representations import MAX_EXECUTION_COUNT, history, history_written
from sandbox.backend.tenancy import Tenant, as_uuid, find_organization


def _rows(tenant: Tenant, workflow_id: Any) -> Any:
    return tenant.owned(FileHistory.objects.all(), "workflow__organization").filter(workflow_id=as_uuid(workflow_id))


class HistoryByKey(InternalView):
    """GET `v1/file-history/cache-key/{key}/?workflow_id=&file_path=`."""

    failure = "Failed to get file history"

    def get(self, request: Request, key: str) -> Response:
        workflow_id = request.query_params.get("workflow_id")
        if not workflow_id:
            raise refuse(400, "workflow_id parameter is required")
        rows = _rows(self.tenant, workflow_id)
        row = histories.find(rows, key, None, request.query_params.get("file_path"))
        return Response({"found": row is not None, "cache_key": key, "file_history": history(row) if row else None})


class HistoryLookup(InternalView):
    """POST `v1/file-history/lookup/`."""

    failure = "Failed to look up file history"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        key, provider = body.get("cache_key"), body.get("provider_file_uuid")
        if not (key or provider):
            raise refuse(400, "Either cache_key or provider_file_uuid is required")
        row = histories.find(_rows(self.tenant, body.get("workflow_id")), key, provider, body.get("file_path"))
        return Response({"found": row is not None, "cache_key": key, "file_history": history(row) if row else None})


class HistoryGet(InternalView):
    """POST `v1/file-history/get/`."""

    failure = "Failed to get file history"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        key, provider = body.get("file_hash"), body.get("provider_file_uuid")
        if not (body.get("workflow_id") and body.get("organization_id") and (key or provider)):
            required = ["workflow_id", "organization_id", "either provider_file_uuid or file_hash"]
            raise refuse(400, "Missing required parameters", required=required, optional=["file_path"])
        row = histories.find(_rows(self.tenant, body["workflow_id"]), key, provider, body.get("file_path"))
        return Response({"file_history": _short(row) if row else None, "found": row is not None})


def _short(row: FileHistory) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "workflow_id": str(row.workflow_id),
        "cache_key": row.cache_key,
        "provider_file_uuid": row.provider_file_uuid,
        "file_path": row.file_path,
        "status": row.status,
        "is_completed": row.status == COMPLETED,
        "created_at": row.created_at.isoformat(),
        "completed_at": row.modified_at.isoformat(),
    }


class HistoryBatchLookup(InternalView):
    """POST `v1/file-history/batch-lookup/`."""

    failure = "Failed to look up file histories"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        if not (body.get("workflow_id") and body.get("files")):
            raise refuse(400, "workflow_id and files array are required")
        rows = _rows(self.tenant, body["workflow_id"])
        found: dict[str, Any] = {}
        for item in body["files"]:
            key, provider, path = item.get("cache_key"), item.get("provider_file_uuid"), item.get("file_path")
            row = histories.find(rows, key, provider, path)
            found[item.get("identifier") or f"{provider or key}:{path}"] = {
                "found": row is not None,
                "is_completed": row is not None and row.status == COMPLETED,
                "file_history": history(row) if row else None,
            }
        return Response({"file_histories": found})


class HistoryCreate(InternalView):
    """POST `v1/file-history/create/`: an upsert, always 201."""

    failure = "Failed to create file history"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        if not (body.get("workflow_id") and body.get("file_hash")):
            raise refuse(400, "workflow_id and file_hash are required")
        workflow = workflow_of(self.tenant, body["workflow_id"])
        row, count = histories.upsert(workflow, body, body["file_hash"])
        return Response(
            {
                "status": "created",
                "workflow_id": str(workflow.id),
                "file_history": history_written(row, count),
                "message": "File history record created successfully",
            },
            status=201,
        )


class HistoryCreateOld(InternalView):
    """POST `v1/workflow-manager/file-history/create/`: the older twin; its own error handling is what fails there."""

    def post(self, request: Request) -> Response:
        body = body_of(request)
        if not (body.get("workflow_id") and body.get("cache_key")):
            raise AttributeError("'NoneType' object has no attribute 'HTTP_500_INTERNAL_SERVER_ERROR'")
        workflow = workflow_of(self.tenant, body["workflow_id"])
        row, _ = histories.upsert(workflow, body, body["cache_key"])
        answer = {"created": True, "file_history_id": str(row.id), "execution_count": row.execution_count}
        return Response(answer)


class HistoryStatus(InternalView):
    """GET `v1/file-history/status/{id}/`."""

    failure = "Failed to get file history status"

    def get(self, _request: Request, history_id: str) -> Response:
        rows = self.tenant.visible(FileHistory.objects.all(), "workflow__organization")
        row = rows.filter(pk=as_uuid(history_id)).first()
        if row is None:
            raise refuse(404, "File history not found")
        return Response(
            {
                "file_history_id": str(row.id),
                "status": "exists",
                "cache_key": row.cache_key,
                "workflow_id": str(row.workflow_id),
                "created_at": row.created_at.isoformat(),
                "is_api": row.is_api,
            }
        )


class HistoryReserve(InternalView):
    """POST `v1/file-history/reserve/`: nobody is told who holds a reservation, and no route releases it."""

    failure = "Failed to reserve file"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        key = body.get("cache_key") or body.get("provider_file_uuid")
        if not (body.get("workflow_id") and key):
            raise refuse(400, "workflow_id and cache_key or provider_file_uuid are required")
        workflow = workflow_of(self.tenant, body["workflow_id"])
        row, made = histories.reserve(workflow, key, body.get("provider_file_uuid"), body.get("file_path"))
        if made:
            message = "File reserved for processing"
            return Response({"reserved": True, "file_history_id": str(row.id), "message": message}, status=201)
        if row.status == COMPLETED:
            return Response(
                {
                    "reserved": False,
                    "already_processed": True,
                    "file_history": history_written(row, row.execution_count),
                    "message": "File already processed, use existing result",
                }
            )
        message = "File already reserved by another worker"
        raise RefusedError(409, {"reserved": False, "already_reserved": True, "message": message})


class HistoryCheckBatch(InternalView):
    """POST `v1/workflow-manager/file-history/check-batch/`: only COMPLETED rows count as processed. The organization
    may come in the body alone."""

    failure = "Failed to check file history"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        hashes = body.get("file_hashes")
        if not (body.get("workflow_id") and hashes):
            raise refuse(400, "workflow_id and file_hashes are required")
        tenant = self.tenant
        if tenant.header is None:
            named = find_organization(body.get("organization_id"))
            tenant = Tenant(named.organization_id if named else None)
        workflow = workflow_of(tenant, body["workflow_id"], "Workflow not found or access denied")
        rows = FileHistory.objects.filter(workflow=workflow, status=COMPLETED, cache_key__in=hashes)
        details = {row.cache_key: _detail(row) for row in rows.order_by("modified_at")}
        return Response(
            {
                "processed_file_hashes": [item for item in hashes if item in details],
                "file_history_details": details,
                "max_execution_count": MAX_EXECUTION_COUNT,
            }
        )


def _detail(row: FileHistory) -> dict[str, Any]:
    return {
        "result": row.result,
        "metadata": row.metadata,
        "error": row.error,
        "file_path": row.file_path,
        "provider_file_uuid": row.provider_file_uuid,
        "execution_count": row.execution_count,
        "status": row.status,
        "max_execution_count": MAX_EXECUTION_COUNT,
    }
