"""Everything under `/sandbox/`: setting up, watching, counting, switching faults on. None of it is the platform's."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Max, Sum
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend import legend, seed
from sandbox.backend.http import InternalView, body_of, refuse
from sandbox.backend.models import BufferRow, Emission, Endpoint, Execution, LogRecord, ToolRun
from sandbox.backend.stats import stats
from sandbox.backend.switches import switchboard
from sandbox.backend.tenancy import uuid_or_none
from sandbox.backend.tools import destination
from sandbox.backend.views import hooks


class Health(InternalView):
    """GET `/sandbox/health`: open, for whoever waits for the start."""

    def get(self, _request: Request) -> Response:
        return Response({"status": "ok"})


class Setup(InternalView):
    """POST `/sandbox/setup/`: an organization with one workflow and its deployment or pipeline.

    Asked again for the same organization, type and name, it answers the same ids and replaces the notifications.
    """

    def post(self, request: Request) -> Response:
        try:
            return Response(seed.setup(body_of(request)))
        except ValueError as error:
            raise refuse(400, str(error)) from error


class SeedRecordings(InternalView):
    """POST `/sandbox/seed/`: the rows the recordings start from, out of `legend.json` (the body)."""

    def post(self, request: Request) -> Response:
        return Response(legend.seed(body_of(request)))


class ExecutionView(InternalView):
    """GET `/sandbox/executions/{id}/`: an execution and its files, whoever they belong to. `?results=true` adds what
    the tools gave, `?logs=true` the lines of its log. DELETE deletes it."""

    def get(self, request: Request, execution_id: str) -> Response:
        row = Execution.objects.filter(pk=uuid_or_none(execution_id)).first()
        if row is None:
            raise refuse(404, "Execution not found")
        files = row.files.order_by("created_at")
        with_results, with_logs = (request.query_params.get(name, "").lower() == "true" for name in ("results", "logs"))
        if with_results:
            files = files.select_related("tool_run")
        names = ("status", "total_files", "successful_files", "failed_files", "error_message", "attempts")
        shown = {"id": str(row.id), **{name: getattr(row, name) for name in (*names, "execution_time")}}
        answer = {"execution": shown, "files": [_file(file, with_results) for file in files]}
        if with_logs:
            lines = LogRecord.objects.filter(execution=row).order_by("pk")
            answer["logs"] = list(lines.values("event_time", "data"))
        return Response(answer)

    def delete(self, _request: Request, execution_id: str) -> Response:
        """As an administrator of the platform deletes one, with its files, while the workers may be at it."""
        deleted, _ = Execution.objects.filter(pk=uuid_or_none(execution_id)).delete()
        return Response({"deleted": bool(deleted)})


def _file(file: Any, with_results: bool) -> dict[str, Any]:
    names = ("file_name", "status", "execution_error", "execution_time")
    shown = {"id": str(file.id), **{name: getattr(file, name) for name in names}}
    if with_results:
        run = getattr(file, "tool_run", None)
        shown["result"] = file.result if file.result is not None else (run.result if run else None)
    return shown


class StatsView(InternalView):
    """GET: the counters. DELETE: start again; tool runs and buffered events before it are no longer counted."""

    def get(self, _request: Request) -> Response:
        return Response(
            {
                **stats.snapshot(),
                "tool_runs": _tool_runs(),
                "destination_rows": destination.count(tables()),
                "notifications": _notifications(),
                "webhooks": hooks.counts(),
                "emissions": _emissions(),
            }
        )

    def delete(self, _request: Request) -> Response:
        stats.reset(timezone.now())
        return Response({"status": "reset"})


def _tool_runs() -> dict[str, Any]:
    """`max` above 1 is a file whose tools ran twice; `more_than_once` names the first hundred of those."""
    rows = ToolRun.objects.filter(started_at__gte=stats.since) if stats.since else ToolRun.objects.all()
    sums = rows.aggregate(files=Count("pk"), total=Sum("runs"), max=Max("runs"))
    again = rows.filter(runs__gt=1).values_list("pk", "runs")[:100]
    return {
        "files": sums["files"],
        "total": sums["total"] or 0,
        "max": sums["max"] or 0,
        "more_than_once": {str(key): runs for key, runs in again},
    }


def _notifications() -> dict[str, int]:
    """`duplicates` are events of one execution enqueued more than once for one webhook."""
    rows = BufferRow.objects.filter(created_at__gte=stats.since) if stats.since else BufferRow.objects.all()
    distinct = rows.values("notification_id", "execution_id").distinct().count()
    states = dict(rows.values_list("state").annotate(count=Count("pk")))
    enqueued = sum(states.values())
    return {"enqueued": enqueued, "duplicates": enqueued - distinct, **states}


def _emissions() -> int:
    """What was shown to rooms."""
    rows = Emission.objects.filter(at__gte=stats.since) if stats.since else Emission.objects.all()
    count: int = rows.count()
    return count


def tables() -> set[str]:
    """The destination tables of every workflow."""
    ends = Endpoint.objects.filter(endpoint_type="DESTINATION", connection_type="DATABASE")
    return {end.configuration["table"] for end in ends if end.configuration.get("table")}


class SwitchesView(InternalView):
    """GET and PUT `/sandbox/switches`: see `switches.py`; a PUT changes what it names."""

    def get(self, _request: Request) -> Response:
        return Response(switchboard.snapshot())

    def put(self, request: Request) -> Response:
        try:
            switchboard.change(body_of(request))
        except ValueError as error:
            raise refuse(400, str(error)) from error
        return Response(switchboard.snapshot())
