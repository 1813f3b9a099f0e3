"""Many executions' statuses at once, file counters, and what batches of any kind share (contract section 2)."""

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


class ExecutionsStatus(InternalView):
    """POST `v1/workflow-manager/batch-status-update/`: one database error undoes the whole batch, and the answer
    still names every row; an illegal status is stored, and reported as refused."""

    failure = "Failed to process batch status update"

    def post(self, request: Request) -> Response:
        updates = body_of(request).get("updates")
        if not updates:
            raise refuse(400, "updates list is required")
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        with transaction.atomic():
            for update in updates:
                try:
                    done.append(self._update(update))
                except (RefusedError, DatabaseError, ValueError, TypeError) as error:
                    failed.append({"execution_id": update.get("execution_id"), "error": reason(error)})
        answer = {"successful_updates": done, "failed_updates": failed, "total_processed": len(updates)}
        return Response(answer)

    def _update(self, update: dict[str, Any]) -> dict[str, Any]:
        identifier, status = update.get("execution_id"), update.get("status")
        if not identifier or not status:
            raise refuse(400, "execution_id and status are required")
        row = self.tenant.executions().filter(pk=valid_uuid(identifier)).first()
        if row is None:
            raise refuse(404, "Workflow execution not found")
        row.status = status
        for name in ("total_files", "attempts", "execution_time"):
            if update.get(name) is not None:
                setattr(row, name, update[name])
        if update.get("error_message"):
            row.error_message = shorten(update["error_message"])
        row.save()
        if status not in STATUSES:
            raise refuse(400, f"Invalid status: {status}. Must be a valid ExecutionStatus.")
        return {"execution_id": identifier, "status": status}


def valid_uuid(text: Any) -> uuid.UUID:
    """`as_uuid` for batches, where a malformed id is one item's failure."""
    try:
        return as_uuid(text)
    except ValidationError as error:
        raise refuse(400, str(error)) from error


def reason(error: Exception) -> str:
    """What a batch says of one failed item."""
    return str(error.body["error"]) if isinstance(error, RefusedError) else str(error)


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
