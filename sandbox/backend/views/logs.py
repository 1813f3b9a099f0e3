"""Usage, execution logs and the web socket relay."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import Sum
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend import results
from sandbox.backend.http import InternalView, RefusedError, body_of, log
from sandbox.backend.models import Emission, Execution, FileExecution, LogRecord, Usage
from sandbox.backend.tenancy import as_uuid, uuid_or_none

_TOKENS = ("embedding_tokens", "prompt_tokens", "completion_tokens", "total_tokens", "cost_in_dollars")


class _UsageView(InternalView):
    """Its 500 names the file execution."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.failure = {"success": False, "error": "Internal server error", **kwargs}


class TokenCount(_UsageView):
    """GET `v1/usage/aggregated-token-count/{file_execution_id}/`: nulls where nothing was used."""

    def get(self, _request: Request, file_execution_id: str) -> Response:
        rows = self.tenant.owned(Usage.objects.filter(run_id=as_uuid(file_execution_id)))
        usage = {"file_execution_id": file_execution_id, **rows.aggregate(**{name: Sum(name) for name in _TOKENS})}
        return Response({"success": True, "data": {"file_execution_id": file_execution_id, "usage": usage}})


class PageCount(_UsageView):
    """GET `v1/usage/aggregated-pages-processed/{file_execution_id}/`: nothing reports pages, so always null."""

    def get(self, _request: Request, file_execution_id: str) -> Response:
        as_uuid(file_execution_id)
        data = {"file_execution_id": file_execution_id, "total_pages_processed": None}
        return Response({"success": True, "data": data})


class UsageBatch(InternalView):
    """POST `v1/usage/batch/` `{records}`."""

    def post(self, request: Request) -> Response:
        records = body_of(request).get("records") or []
        if not records:
            return Response({"created": 0})
        organization = self.tenant.organization
        if organization is None:
            raise ValidationError(["Organization context missing. Worker must send X-Organization-ID."])
        rows = [_usage(record, organization) for record in records]
        Usage.objects.bulk_create(rows)
        return Response({"created": len(rows)}, status=201)


def _usage(record: dict[str, Any], organization: Any) -> Usage:
    ids = {name: as_uuid(record[name]) if record.get(name) else None for name in ("execution_id", "run_id")}
    amounts = {name: record.get(name) or 0 for name in _TOKENS}
    return Usage(organization=organization, **ids, **amounts)


def _shown(row: Execution | FileExecution, **parent: Any) -> dict[str, Any]:
    """An execution, or a file of one, with what it belongs to."""
    owner = {name: str(value) for name, value in parent.items()}
    return {"id": str(row.id), **owner, "status": row.status, "created_at": row.created_at.isoformat()}


class ExecutionsByIds(InternalView):
    """POST `v1/execution-logs/workflow-executions/by-ids/`."""

    failure = "Failed to get executions"

    def post(self, request: Request) -> Response:
        rows = self.tenant.executions().filter(pk__in=_ids(body_of(request), "execution_ids"))
        return Response({"executions": {str(row.id): _shown(row, workflow_id=row.workflow_id) for row in rows}})


class FilesByIds(InternalView):
    """POST `v1/execution-logs/file-executions/by-ids/`."""

    failure = "Failed to get file executions"

    def post(self, request: Request) -> Response:
        rows = self.tenant.files().filter(pk__in=_ids(body_of(request), "file_execution_ids"))
        shown = {str(row.id): _shown(row, workflow_execution_id=row.execution_id) for row in rows}
        return Response({"file_executions": shown})


class ValidateExecutions(InternalView):
    """POST `v1/execution-logs/executions/validate/`: which of the ids exist."""

    failure = "Failed to validate executions"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        executions = self.tenant.executions().filter(pk__in=_ids(body, "execution_ids"))
        found = self.tenant.files().filter(pk__in=_ids(body, "file_execution_ids"))
        return Response(
            {
                "valid_executions": [str(key) for key in executions.values_list("pk", flat=True)],
                "valid_file_executions": [str(key) for key in found.values_list("pk", flat=True)],
            }
        )


def _ids(body: dict[str, Any], name: str) -> list[Any]:
    return [as_uuid(item) for item in body.get(name) or []]


class ProcessLogHistory(InternalView):
    """POST `v1/execution-logs/process-log-history/`: moves the Redis list `log_history_queue` into the database.
    Records of an execution that does not exist are skipped."""

    failure = "Failed to process log history"

    def post(self, _request: Request) -> Response:
        records = [_record(item) for item in results.take_logs()]
        wanted = {record.get("execution_id") for record in records} - {None}
        known = {str(row.id): row for row in Execution.objects.filter(pk__in=wanted).select_related("workflow")}
        rows = [_log_row(record, known) for record in records if record.get("execution_id") in known]
        LogRecord.objects.bulk_create(rows)
        if len(rows) < len(records):
            log.warning("%d log records name no known execution", len(records) - len(rows))
        organizations = {known[str(row.execution_id)].workflow.organization_id for row in rows}
        return Response(
            {
                "processed_count": len(rows),
                "skipped_count": len(records) - len(rows),
                "total_logs": len(records),
                "organizations_processed": len(organizations),
            }
        )


def _record(item: bytes) -> dict[str, Any]:
    """A log record with its execution's id in one spelling, or with none."""
    try:
        record = json.loads(item)
    except ValueError:
        return {}
    if not isinstance(record, dict):
        return {}
    identifier = uuid_or_none(record.get("execution_id"))
    return {**record, "execution_id": str(identifier) if identifier else None}


def _log_row(record: dict[str, Any], known: dict[str, Execution]) -> LogRecord:
    return LogRecord(
        execution=known[record["execution_id"]],
        event_time=str(record.get("timestamp", ""))[:64],
        data=record.get("data"),
    )


class EmitWebsocket(InternalView):
    """POST `emit-websocket/` `{room, event, data}`: nobody listens, so it only checks, and keeps what was shown."""

    def post(self, request: Request) -> Response:
        body = body_of(request)
        if not (body.get("room") and body.get("event")):
            message = "Missing required fields: room and event are required"
            raise RefusedError(400, {"status": "error", "message": message})
        Emission.objects.create(room=body["room"], event=body["event"], data=body.get("data"))
        return Response(
            {
                "status": "success",
                "message": "WebSocket event emitted successfully",
                "room": body["room"],
                "event": body["event"],
            }
        )
