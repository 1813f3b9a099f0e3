"""What batches of any kind share; many executions' statuses at once; file counters."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction
from django.db.models import F
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import InternalView, RefusedError, body_of, refuse
from sandbox.backend.models import STATUSES
from sandbox.backend.tenancy import as_uuid
from sandbox.backend.views.executions import shorten


class Batch(InternalView):
    """A list of items in one transaction: one database error undoes all, and the answer still names every row."""

    list_name = ""
    id_name = ""
    done_name = "successful_updates"
    failed_name = "failed_updates"
    success = 200

    def post(self, request: Request) -> Response:
        items = body_of(request).get(self.list_name)
        if not items:
            raise refuse(400, f"{self.list_name} list is required")
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        with transaction.atomic():
            for item in items:
                try:
                    done.append(self.one(item))
                except RefusedError as error:
                    failed.append({**self.named(item), "error": error.body["error"]})
                except (DatabaseError, ValueError, TypeError) as error:
                    failed.append({**self.named(item), "error": str(error)})
        answer = {self.done_name: done, self.failed_name: failed, "total_processed": len(items)}
        return Response(answer, status=self.success)

    def one(self, item: dict[str, Any]) -> dict[str, Any]:
        """Write one item and describe it."""
        raise NotImplementedError

    def named(self, item: dict[str, Any]) -> dict[str, Any]:
        """How a failed item is named."""
        return {self.id_name: item.get(self.id_name)}


def valid_uuid(text: Any) -> uuid.UUID:
    """`as_uuid` for batches, where a malformed id is one item's failure."""
    try:
        return as_uuid(text)
    except ValidationError as error:
        raise refuse(400, str(error)) from error


class ExecutionsStatus(Batch):
    """POST `v1/workflow-manager/batch-status-update/`: an illegal status is stored, and reported as refused."""

    failure = "Failed to process batch status update"
    list_name = "updates"
    id_name = "execution_id"

    def one(self, item: dict[str, Any]) -> dict[str, Any]:
        identifier, status = item.get("execution_id"), item.get("status")
        if not identifier or not status:
            raise refuse(400, "execution_id and status are required")
        row = self.tenant.executions().filter(pk=valid_uuid(identifier)).first()
        if row is None:
            raise refuse(404, "Workflow execution not found")
        row.status = status
        for name in ("total_files", "attempts", "execution_time"):
            if item.get(name) is not None:
                setattr(row, name, item[name])
        if item.get("error_message"):
            row.error_message = shorten(item["error_message"])
        row.save()
        if status not in STATUSES:
            raise refuse(400, f"Invalid status: {status}. Must be a valid ExecutionStatus.")
        return {"execution_id": identifier, "status": status}


class IncrementFiles(InternalView):
    """POST `v1/workflow-manager/increment-files/`: not idempotent, and it does not change the execution's counts."""

    failure = "Failed to increment file count"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        names = ("workflow_id", "execution_id", "increment_type")
        workflow_id, execution_id, kind = (body.get(name) for name in names)
        if not (workflow_id and execution_id and kind):
            raise refuse(400, "workflow_id, execution_id, and increment_type are required")
        if kind not in {"completed", "failed"}:
            raise refuse(400, f"Invalid increment_type: {kind}. Must be 'completed' or 'failed'")
        column = f"incremented_{kind}"
        rows = self.tenant.executions().filter(pk=as_uuid(execution_id))
        if not rows.update(**{column: F(column) + 1}):
            raise refuse(404, "Workflow execution not found")
        answer = {"workflow_id": workflow_id, "execution_id": execution_id, "increment_type": kind}
        return Response({"success": True, **answer})
