"""Every route of the backend, in one table.

The trailing slashes are the real backend's: part of the path, and `check-active` alone has none.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.html import escape

from sandbox.backend.views import (
    basics,
    batches,
    buffer,
    control,
    evidence,
    execute_file,
    executions,
    filebatches,
    files,
    history,
    hooks,
    logs,
    pipelines,
    public,
    sending,
    webhooks,
    workflows,
)

_STATUS_STUB = {"status": "updated"}
_CREATE_STUB = {"batch_id": "temp-batch-id", "status": "created"}

# Below `internal/v1/`. Of two routes that fit, the first is taken: `metrics/` before `<file_id>/`.
_ROUTES: list[tuple[str, Any]] = [
    ("health/", basics.Health),
    ("organization/<identifier>/context/", basics.OrganizationContext),
    ("configuration/<key>/", basics.ConfigurationValue),
    ("workflow-execution/", executions.ExecutionList),
    ("workflow-execution/create-file-batch/", filebatches.FileBatch),
    ("workflow-execution/<execution_id>/", executions.ExecutionDetail),
    ("workflow-execution/<execution_id>/update_status/", executions.ExecutionStatus),
    ("workflow-manager/execution/create/", executions.ExecutionCreate),
    ("workflow-manager/execution/<execution_id>/", executions.ExecutionBroken),
    ("workflow-manager/batch-status-update/", batches.ExecutionsStatus),
    ("workflow-manager/increment-files/", batches.IncrementFiles),
    ("workflow-manager/execute-file/", execute_file.ExecuteFile),
    ("workflow-manager/execute-file/<file_id>/", execute_file.ExecutedFile),
    ("workflow-manager/source-files/<workflow_id>/", workflows.SourceFiles),
    ("workflow-manager/workflow/<workflow_id>/", workflows.WorkflowDefinition),
    ("workflow-manager/workflow/<workflow_id>/tool-instances/", workflows.WorkflowTools),
    ("workflow-manager/<workflow_id>/endpoint/", workflows.WorkflowEndpoints),
    ("workflow-manager/pipeline/<pipeline_id>/status/", pipelines.PipelineStatus),
    ("workflow-manager/pipeline-type/<pipeline_id>/", pipelines.PipelineType),
    ("workflow-manager/pipeline-name/<pipeline_id>/", pipelines.PipelineName),
    ("workflow-manager/file-batch/", filebatches.FileBatch),
    ("workflow-manager/file-batch/submit/", filebatches.FileBatchSubmit),
    ("workflow-manager/file-execution/", filebatches.FileGetOrCreate),
    ("workflow-manager/file-execution/check-active", filebatches.CheckActive),
    ("workflow-manager/file-history/check-batch/", history.HistoryCheckBatch),
    ("workflow-manager/file-history/create/", history.HistoryCreateOld),
    ("file-execution/", files.FileCollection),
    ("file-execution/batch-create/", files.FilesCreate),
    ("file-execution/batch-status-update/", files.FilesStatus),
    ("file-execution/batch-hash-update/", files.FilesHash),
    ("file-execution/metrics/", files.FileMetrics),
    ("file-execution/<file_id>/", files.FileDetail),
    ("file-execution/<file_id>/status/", files.FileStatus),
    ("file-execution/<file_id>/update_hash/", files.FileHash),
    ("file-history/cache-key/<key>/", history.HistoryByKey),
    ("file-history/lookup/", history.HistoryLookup),
    ("file-history/get/", history.HistoryGet),
    ("file-history/batch-lookup/", history.HistoryBatchLookup),
    ("file-history/create/", history.HistoryCreate),
    ("file-history/status/<history_id>/", history.HistoryStatus),
    ("file-history/reserve/", history.HistoryReserve),
    ("pipeline/<pipeline_id>/", pipelines.PipelineDetail),
    ("api-deployments/<uuid:api_id>/", pipelines.DeploymentDetail),
    ("tool-execution/validate/", workflows.ValidateTools),
    ("tool-execution/tool/<tool_id>/", workflows.Tool),
    ("webhook/", webhooks.WebhookList),
    ("webhook/pipeline/<pipeline_id>/notifications/", webhooks.PipelineNotifications),
    ("webhook/pipeline/<pipeline_id>/", webhooks.PipelineData),
    ("webhook/api/<api_id>/notifications/", webhooks.ApiNotifications),
    ("webhook/api/<api_id>/", webhooks.ApiData),
    ("webhook/send/", sending.WebhookSend),
    ("webhook/batch/", sending.WebhookBatch),
    ("webhook/batch-status/", sending.WebhookBatchStatus),
    ("webhook/status/<task_id>/", sending.WebhookStatus),
    ("webhook/buffer/enqueue/", buffer.Enqueue),
    ("webhook/buffer/process/", buffer.Process),
    ("webhook/<notification_id>/configuration/", webhooks.WebhookConfiguration),
    ("webhook/<notification_id>/", webhooks.WebhookDetail),
    ("usage/aggregated-token-count/<file_execution_id>/", logs.TokenCount),
    ("usage/aggregated-pages-processed/<file_execution_id>/", logs.PageCount),
    ("usage/batch/", logs.UsageBatch),
    ("execution-logs/workflow-executions/by-ids/", logs.ExecutionsByIds),
    ("execution-logs/file-executions/by-ids/", logs.FilesByIds),
    ("execution-logs/executions/validate/", logs.ValidateExecutions),
    ("execution-logs/process-log-history/", logs.ProcessLogHistory),
]

_MARK = "internal/v1/webhook/buffer/mark"
_STUB = "internal/v1/workflow-manager/file-execution"

urlpatterns = [
    *(path(f"internal/v1/{route}", view.as_view()) for route, view in _ROUTES),
    path(f"{_MARK}/dispatched/", buffer.Mark.as_view(state="DISPATCHED")),
    path(f"{_MARK}/dead-letter/", buffer.Mark.as_view(state=buffer.DEAD_LETTER)),
    path(f"{_STUB}/batch-create/", filebatches.FileBatchStub.as_view(answer=_CREATE_STUB)),
    path(f"{_STUB}/batch-status-update/", filebatches.FileBatchStub.as_view(answer=_STATUS_STUB)),
    path("internal/emit-websocket/", logs.EmitWebsocket.as_view()),
    path("deployment/api/<organization>/<api_name>/", public.DeploymentApi.as_view()),
    path("pipeline/api/<organization>/<pipeline_id>/", public.PipelineApi.as_view()),
    path("sandbox/health", control.Health.as_view()),
    path("sandbox/setup/", control.Setup.as_view()),
    path("sandbox/seed/", control.SeedRecordings.as_view()),
    path("sandbox/staged/<organization>/<api_name>/", public.StagedApi.as_view()),
    path("sandbox/executions/<execution_id>/", control.ExecutionView.as_view()),
    path("sandbox/evidence", evidence.EvidenceView.as_view()),
    path("sandbox/hooks/", hooks.Received.as_view()),
    path("sandbox/hooks/<name>/", hooks.Receive.as_view()),
    path("sandbox/stats", control.StatsView.as_view()),
    path("sandbox/switches", control.SwitchesView.as_view()),
]


def handler404(request: HttpRequest, **_exception: Any) -> HttpResponse:
    """The page of a path that is no route: the workers meet it when they call a route that is not there yet."""
    title = f"Page not found at {escape(request.path)}"
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n'
        f'  <meta http-equiv="content-type" content="text/html; charset=utf-8">\n  <title>{title}</title>\n'
        f"</head>\n<body><h1>{title}</h1></body>\n</html>\n"
    )
    return HttpResponse(page, status=404, content_type="text/html; charset=utf-8")
