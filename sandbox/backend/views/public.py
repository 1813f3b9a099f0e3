"""The public side: what a user of the platform calls, with the key of a deployment or pipeline.

POST `/deployment/api/{organization}/{api_name}/` starts an execution on uploaded documents, GET with `execution_id`
fetches its results; POST and GET `/pipeline/api/{organization}/{pipeline_id}/` do the same for a source folder. POST
`/sandbox/staged/{organization}/{api_name}/` is the sandbox's own: an execution of which no worker is told.
"""

from __future__ import annotations

import hmac
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from threading import BoundedSemaphore
from typing import Any, cast

from django.conf import settings
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend import publisher, results, staging
from sandbox.backend.http import InternalView, log, refuse
from sandbox.backend.models import COMPLETED, ERROR, TERMINAL, ApiDeployment, Execution, Pipeline
from sandbox.backend.switches import switchboard
from sandbox.backend.tenancy import uuid_or_none
from sandbox.backend.views.executions import shorten

LONGEST_WAIT_SECONDS = 300.0
_TRUE = {"true", "1", "yes", "on"}
# Clients that wait for the end of their execution must leave threads for the workers that bring it about.
_seats = BoundedSemaphore(max(1, settings.SANDBOX.threads // 4))


class _Public(InternalView):
    """What both share: the key, and finding an execution. A refusal is `{error}`."""

    def authorize(self, row: ApiDeployment | Pipeline | None) -> None:
        """404 for what does not exist or is switched off, 401 for a key that does not open it."""
        if row is None:
            raise refuse(404, "API not found")
        given = self.request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {row.api_key}".encode()):
            raise refuse(401, "Invalid API key")

    def execution(self, request: Request, owner: ApiDeployment | Pipeline) -> Execution:
        identifier = uuid_or_none(request.query_params.get("execution_id"))
        row: Execution | None = Execution.objects.filter(pk=identifier, pipeline_id=owner.id).first()
        if row is None:
            raise refuse(404, "Execution not found")
        return row


class DeploymentApi(_Public):
    """Documents in, results out."""

    def post(self, request: Request, organization: str, api_name: str) -> Response:
        deployment = self._deployment(organization, api_name)
        execution_id = uuid.uuid4()
        with _staging(request, deployment, execution_id) as not_started:
            form = request.data
            wait, flags = _seconds(form.get("timeout")), _flags(form)
            hashes = _files(request)
            with _committed_late():
                row = _create(execution_id, deployment, len(hashes), form.get("tags"))
                sent = _send(row, deployment, publisher.API_QUEUE, hashes, flags)
            if not sent:
                return Response(_started(row, deployment), status=503)
            not_started.pop_all()
        _wait(row, wait)
        return _outcome(row, deployment, unfinished=200)

    def get(self, request: Request, organization: str, api_name: str) -> Response:
        deployment = self._deployment(organization, api_name)
        row = self.execution(request, deployment)
        if row.result_acknowledged:
            return _gone(row, deployment)
        return _outcome(row, deployment, unfinished=422)

    def _deployment(self, organization: str, api_name: str) -> ApiDeployment:
        row = _active(organization, api_name)
        self.authorize(row)
        return cast("ApiDeployment", row)


class StagedApi(InternalView):
    """An execution with its documents, as a deployment makes it, and no message: whoever staged it writes its status.

    Answers `{execution_id, workflow_id, files: {name: FileHashData}}`, the entries as the message would have had them.
    """

    def post(self, request: Request, organization: str, api_name: str) -> Response:
        deployment = _active(organization, api_name)
        if deployment is None:
            raise refuse(404, "API not found")
        execution_id = uuid.uuid4()
        with _staging(request, deployment, execution_id) as not_started:
            files = _files(request)
            row = _create(execution_id, deployment, len(files), request.data.get("tags"))
            not_started.pop_all()
        return Response({"execution_id": str(row.id), "workflow_id": str(row.workflow_id), "files": files})


def _active(organization: str, api_name: str) -> ApiDeployment | None:
    rows = ApiDeployment.objects.select_related("organization", "workflow")
    row: ApiDeployment | None
    row = rows.filter(organization__organization_id=organization, api_name=api_name, is_active=True).first()
    return row


@contextmanager
def _staging(request: Request, deployment: ApiDeployment, execution_id: uuid.UUID) -> Iterator[ExitStack]:
    """The request's documents go to the disk, and away again if the stack that is given has not been emptied."""
    folder = staging.folder_of(deployment.organization, execution_id)
    # Before the body is touched: parsing is what writes the files.
    request.upload_handlers = [staging.StagingHandler(folder)]
    with ExitStack() as not_started:
        not_started.callback(staging.remove, folder)
        yield not_started


class PipelineApi(_Public):
    """Starts an ETL or TASK pipeline on its source folder; its results are in its destination."""

    def post(self, request: Request, organization: str, pipeline_id: str) -> Response:
        pipeline = self._pipeline(organization, pipeline_id)
        with _committed_late():
            row = _create(uuid.uuid4(), pipeline, 0, None)
            sent = _send(row, pipeline, publisher.GENERAL_QUEUE, {}, _flags(request.data))
        return Response(_started(row, pipeline), status=200 if sent else 503)

    def get(self, request: Request, organization: str, pipeline_id: str) -> Response:
        pipeline = self._pipeline(organization, pipeline_id)
        row = self.execution(request, pipeline)
        return Response(_started(row, pipeline), status=200 if row.status == COMPLETED else 422)

    def _pipeline(self, organization: str, pipeline_id: str) -> Pipeline:
        rows = Pipeline.objects.select_related("organization", "workflow")
        key = uuid_or_none(pipeline_id)
        row = rows.filter(organization__organization_id=organization, pk=key, active=True).first()
        self.authorize(row)
        return cast("Pipeline", row)


def _flags(form: Any) -> dict[str, Any]:
    """What a user may say of an execution, as the message says it."""
    return {
        "use_file_history": str(form.get("use_file_history", "")).lower() in _TRUE,
        "llm_profile_id": form.get("llm_profile_id"),
        "hitl_queue_name": form.get("hitl_queue_name"),
        "custom_data": _json(form.get("custom_data")),
    }


def _seconds(text: str | None) -> float:
    """How long the caller waits for the end; -1, the default, is not at all."""
    try:
        return min(float(text or -1), LONGEST_WAIT_SECONDS)
    except ValueError:
        raise refuse(400, "timeout must be a number of seconds, or -1") from None


def _files(request: Request) -> dict[str, dict[str, Any]]:
    """The documents by their names, as messages tell of them."""
    uploaded = request.FILES.getlist(staging.FIELD)
    if not uploaded:
        raise refuse(400, f"At least one document is required, in the field {staging.FIELD!r}")
    try:
        files = staging.unique_names(uploaded)
    except ValueError as error:
        raise refuse(400, str(error)) from error
    return {name: file.file_hash_data(number, name) for number, (name, file) in enumerate(files.items(), 1)}


def _json(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        raise refuse(400, "custom_data must be JSON") from None


def _create(execution_id: uuid.UUID, owner: ApiDeployment | Pipeline, total: int, tags: str | None) -> Execution:
    names = [name.strip() for name in (tags or "").split(",") if name.strip()]
    row: Execution = Execution.objects.create(
        id=execution_id,
        workflow=owner.workflow,
        pipeline_id=owner.id,
        execution_log_id=str(owner.id),
        total_files=total,
        tags=[{"id": str(uuid.uuid4()), "name": name, "description": ""} for name in names],
    )
    return row


@contextmanager
def _committed_late() -> Iterator[None]:
    """Where it is switched so, as a backend whose message overtakes the row that it is about."""
    seconds = switchboard.current.late_commit_seconds
    with transaction.atomic() if seconds else nullcontext():
        yield
        time.sleep(seconds)


def _send(
    row: Execution, owner: ApiDeployment | Pipeline, queue: str, hashes: dict[str, Any], flags: dict[str, Any]
) -> bool:
    """Publish `async_execute_bin`. An execution that nobody was told of is an ERROR at once."""
    kwargs: dict[str, Any] = {
        "scheduled": False,
        "execution_mode": None,
        "pipeline_id": str(owner.id),
        "log_events_id": None,
        "hitl_packet_id": None,
        "transport": "celery",
        **flags,
    }
    args = [owner.organization.organization_id, str(row.workflow_id), str(row.id), hashes]
    try:
        publisher.publish(publisher.EXECUTE, queue, args, kwargs)
    except publisher.PublishError as error:
        log.error("execution %s is not started: %s", row.id, error)
        row.status, row.error_message = ERROR, shorten(str(error))
        row.save(update_fields=["status", "error_message", "modified_at"])
        return False
    return True


def _wait(row: Execution, seconds: float) -> None:
    """Look again, ever more slowly, until the execution is over or the time is."""
    if seconds <= 0 or not _seats.acquire(blocking=False):
        return
    try:
        until, pause = time.monotonic() + seconds, 0.05
        while row.status not in TERMINAL and time.monotonic() < until:
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
            pause = min(pause * 1.5, 0.5)
            row.refresh_from_db(fields=["status", "error_message", "result_acknowledged"])
    finally:
        _seats.release()


def _started(row: Execution, owner: ApiDeployment | Pipeline, result: Any = None) -> dict[str, Any]:
    """The body of every public answer."""
    if isinstance(owner, ApiDeployment):
        path = f"/deployment/api/{owner.organization.organization_id}/{owner.api_name}/"
    else:
        path = f"/pipeline/api/{owner.organization.organization_id}/{owner.id}/"
    message = {
        "execution_status": row.status,
        "status_api": f"{path}?execution_id={row.id}",
        "error": row.error_message or None,
        "result": result,
    }
    return {"message": message, "execution_id": str(row.id), "workflow_id": str(row.workflow_id)}


def _outcome(row: Execution, owner: ApiDeployment, unfinished: int) -> Response:
    """200 with the results of a COMPLETED execution, once; 422 with what there is of a failed one."""
    if row.status not in TERMINAL:
        return Response(_started(row, owner), status=unfinished)
    try:
        found = results.read(row.workflow_id, row.id)
    except results.ResultsError as error:
        log.error("results of execution %s: %s", row.id, error)
        raise refuse(503, str(error)) from error
    if row.status != COMPLETED:
        return Response(_started(row, owner, found), status=422)
    unread = Execution.objects.filter(pk=row.pk, result_acknowledged=False)
    if not unread.update(result_acknowledged=True):
        return _gone(row, owner)
    staging.remove(staging.folder_of(owner.organization, row.id))
    if len(found) < row.total_files:
        log.warning("execution %s: %d results of %d files", row.id, len(found), row.total_files)
    return Response(_started(row, owner, found))


def _gone(row: Execution, owner: ApiDeployment) -> Response:
    body = _started(row, owner)
    body["message"]["error"] = "The results were fetched already"
    return Response(body, status=406)
