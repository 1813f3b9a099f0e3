"""Executing one file: POST and GET `v1/workflow-manager/execute-file/`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import InternalView, RefusedError, body_of, refuse
from sandbox.backend.models import COMPLETED, EXECUTING, FileExecution, ToolRun
from sandbox.backend.tenancy import as_uuid
from sandbox.backend.tools import pages, runs
from sandbox.backend.tools.pool import pool

POLL_AFTER_SECONDS = 0.5
RETRY_AFTER_SECONDS = "1"


class ExecuteFile(InternalView):
    """POST: accept the file, or answer what became of it. A repeat never runs the tools twice."""

    failure = "Failed to execute file"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        file_data = body.get("file_data") or {}
        file = self._file(request, body, file_data)
        run: ToolRun | None = getattr(file, "tool_run", None)
        if run is None or runs.abandoned(run):
            self._accept(file, file_data)
        elif run.state != EXECUTING:
            return describe(run)
        pool().wait(file.pk, settings.SANDBOX.tool_wait_seconds)
        return describe(ToolRun.objects.get(pk=file.pk))

    def _file(self, request: Request, body: dict[str, Any], file_data: dict[str, Any]) -> FileExecution:
        key = request.headers.get("Idempotency-Key")
        if not key or key != str(file_data.get("file_execution_id")):
            message = "Idempotency-Key is required, and must be the file_execution_id of file_data"
            raise refuse(400, message)
        rows = self.tenant.files().select_related("execution__workflow__organization", "tool_run")
        row: FileExecution | None = rows.filter(pk=as_uuid(key)).first()
        if row is None:
            raise refuse(404, f"File execution {key} not found")
        named = {"execution_id": row.execution_id, "workflow_id": row.execution.workflow_id}
        for name, value in named.items():
            if body.get(name) != str(value):
                raise refuse(400, f"{name} is not that of file execution {key}")
        return row

    @staticmethod
    def _accept(file: FileExecution, file_data: dict[str, Any]) -> None:
        """The place first, the claim second: a claim without a place would be a file that nobody runs."""
        job = runs.job_of(file, file_data, _page(file_data))
        if runs.instant():
            if runs.claim(file.pk):
                runs.carry_out(job)
            return
        if not pool().reserve():
            raise RefusedError(503, {"error": "All tools are busy"}, {"Retry-After": RETRY_AFTER_SECONDS})
        claimed = False
        try:
            claimed = runs.claim(file.pk)
        finally:
            if not claimed:
                pool().cancel()
        if claimed:
            runs.start(job)


def _page(file_data: dict[str, Any]) -> int | None:
    try:
        return pages.asked(file_data.get("custom_data"))
    except ValueError as error:
        raise refuse(400, str(error)) from error


class ExecutedFile(InternalView):
    """GET: the same answers. 404: never accepted, or accepted by a process that is gone; post again."""

    failure = "Failed to get file execution state"

    def get(self, _request: Request, file_id: str) -> Response:
        file = self.tenant.files().filter(pk=as_uuid(file_id)).select_related("tool_run").first()
        run: ToolRun | None = getattr(file, "tool_run", None)
        if run is None or runs.abandoned(run):
            raise refuse(404, f"File execution {file_id} was not accepted")
        return describe(run)


def describe(run: ToolRun) -> Response:
    """202 while it runs; 200 with COMPLETED or ERROR, which are both final."""
    answer: dict[str, Any] = {"status": run.state, "file_execution_id": str(run.pk)}
    if run.state == EXECUTING:
        return Response({**answer, "poll_after": POLL_AFTER_SECONDS}, status=202)
    if run.state == COMPLETED:
        return Response(
            {**answer, "result": run.result, "metadata": run.metadata, "execution_time": run.execution_time}
        )
    return Response({**answer, "error": run.error, "metadata": run.metadata})
