"""What became of every execution there is: what a judge of the workers looks at once it is quiet."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import InternalView
from sandbox.backend.models import Execution, FileExecution, Pipeline
from sandbox.backend.tools import destination
from sandbox.backend.views.control import tables


class EvidenceView(InternalView):
    """GET `/sandbox/evidence`: `{executions: [{id, kind, pipeline_status, status, ..., files: [...]}]}`, oldest first.

    `runs`, `restarts` and `rows` of a file are how often its tools were started, how often of these because the
    backend itself had died, and how many rows it has in a destination table.
    """

    def get(self, _request: Request) -> Response:
        files = _files()
        pipelines = {str(key): status for key, status in Pipeline.objects.values_list("id", "last_run_status")}
        rows = Execution.objects.select_related("workflow").order_by("created_at")
        return Response({"executions": [_execution(row, files[row.id], pipelines) for row in rows]})


def _files() -> defaultdict[Any, list[dict[str, Any]]]:
    """The files of every execution, without what was in them: a long storm has thousands."""
    written = destination.rows_of_files(tables())
    names = ("execution_id", "id", "file_name", "status", "execution_error", "tool_run__runs", "tool_run__restarts")
    found: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
    for execution, key, name, status, error, runs, restarts in FileExecution.objects.values_list(*names):
        shown = {"id": str(key), "name": name, "status": status, "error": error}
        counts = {"runs": runs or 0, "restarts": restarts or 0, "rows": written[str(key)]}
        found[execution].append(shown | counts)
    return found


def _execution(row: Execution, files: list[dict[str, Any]], pipelines: dict[str, str]) -> dict[str, Any]:
    names = ("status", "total_files", "successful_files", "failed_files", "error_message")
    shown = {"id": str(row.id), "workflow_id": str(row.workflow_id), "kind": row.workflow.workflow_type}
    shown["pipeline_status"] = pipelines.get(str(row.pipeline_id))
    return {**shown, **{name: getattr(row, name) for name in names}, "files": files}
