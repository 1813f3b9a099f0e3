"""The rows of the contract's table of the internal API (sections 2 and 3), and which of them may be sent again.

GET and PUT may always be repeated. A POST is sent once, unless a reason stands above it: what creates or sends would
do so twice. What asks a third system, or works through rows without a bound, stands apart from what touches a few:
when a source or the broker hangs, statuses must still be written.
"""

from shared import backend_models as models
from shared import platform_models as platform
from shared.backend_protocol import Endpoint, RouteGroup

_BULK = RouteGroup.BULK

HEALTH = Endpoint("GET", "v1/health/", models.Health, needs_organization=False)

EXECUTION = Endpoint("GET", "v1/workflow-execution/{execution_id}/", models.Execution)
EXECUTIONS = Endpoint("GET", "v1/workflow-execution/", models.ExecutionRows, _BULK)
EXECUTION_CREATION = Endpoint("POST", "v1/workflow-manager/execution/create/", models.CreatedExecution)
# Repeating a status is harmless, of one row or of many: they end as they were.
EXECUTION_STATUS = Endpoint(
    "POST", "v1/workflow-execution/{execution_id}/update_status/", models.Acknowledgement, repeatable=True
)
EXECUTION_STATUSES = Endpoint(
    "POST", "v1/workflow-manager/batch-status-update/", models.UpdatedRows, _BULK, repeatable=True
)
FILE_STATUS = Endpoint("POST", "v1/file-execution/{file_execution_id}/status/", models.Acknowledgement, repeatable=True)
FILE_STATUSES = Endpoint("POST", "v1/file-execution/batch-status-update/", models.UpdatedRows, _BULK, repeatable=True)

# The same key gives the same row.
FILE_EXECUTION = Endpoint("POST", "v1/file-execution/", models.FileExecution, repeatable=True)
FILE_EXECUTION_ROW = Endpoint("GET", "v1/file-execution/{file_execution_id}/", models.FileExecution)
FILE_EXECUTIONS = Endpoint("GET", "v1/file-execution/", models.FileRows, _BULK)
# Creates each time: a second finds duplicates, and undoes its whole batch.
FILE_BATCH = Endpoint("POST", "v1/workflow-manager/file-batch/", models.FileBatch, _BULK)
# Counts each time.
FILE_COUNT = Endpoint("POST", "v1/workflow-manager/increment-files/", models.Acknowledgement)
# The next three read, whatever their method.
SOURCE_FILES = Endpoint(
    "POST", "v1/workflow-manager/source-files/{workflow_id}/", models.SourceFiles, _BULK, repeatable=True
)
ACTIVE_FILES = Endpoint(
    "POST", "v1/workflow-manager/file-execution/check-active", models.ActiveFiles, _BULK, repeatable=True
)
FILE_HISTORIES = Endpoint(
    "POST", "v1/workflow-manager/file-history/check-batch/", models.Histories, _BULK, repeatable=True
)
# An upsert.
FILE_HISTORY = Endpoint("POST", "v1/file-history/create/", models.CreatedHistory, repeatable=True)
# A second finds the file held, and cannot know that it is by the first.
FILE_RESERVATION = Endpoint("POST", "v1/file-history/reserve/", models.Reservation)
# Repeatable by the Idempotency-Key of each request.
EXECUTE_FILE = Endpoint("POST", "v1/workflow-manager/execute-file/", models.FileRun, RouteGroup.TOOLS)
FILE_RUN = Endpoint("GET", "v1/workflow-manager/execute-file/{file_execution_id}/", models.FileRun)

WORKFLOW = Endpoint("GET", "v1/workflow-manager/workflow/{workflow_id}/", platform.Workflow)
WORKFLOW_ENDPOINTS = Endpoint("GET", "v1/workflow-manager/{workflow_id}/endpoint/", platform.WorkflowEndpoints)
TOOL_INSTANCES = Endpoint("GET", "v1/workflow-manager/workflow/{workflow_id}/tool-instances/", platform.ToolInstances)
# Reads.
TOOL_VALIDATION = Endpoint("POST", "v1/tool-execution/validate/", platform.Validation, _BULK, repeatable=True)
PIPELINE = Endpoint("GET", "v1/pipeline/{pipeline_id}/", platform.PipelineAnswer)
PIPELINE_STATUS = Endpoint("PUT", "v1/pipeline/{pipeline_id}/", models.Acknowledgement)
API_DEPLOYMENT = Endpoint("GET", "v1/api-deployments/{api_id}/", platform.ApiDeploymentAnswer)
ORGANIZATION = Endpoint("GET", "v1/organization/{organization_id}/context/", platform.OrganizationContext)
CONFIGURATION = Endpoint("GET", "v1/configuration/{key}/", platform.Configuration)
TOKEN_USAGE = Endpoint("GET", "v1/usage/aggregated-token-count/{file_execution_id}/", platform.UsageAnswer)

PIPELINE_NOTIFICATIONS = Endpoint("GET", "v1/webhook/pipeline/{pipeline_id}/notifications/", platform.Notifications)
API_NOTIFICATIONS = Endpoint("GET", "v1/webhook/api/{api_id}/notifications/", platform.Notifications)
BUFFER_EVENT = Endpoint("POST", "v1/webhook/buffer/enqueue/", platform.BufferedEvent)
# Repeating a mark is harmless: only rows that are being sent change.
BUFFER_DISPATCHED = Endpoint("POST", "v1/webhook/buffer/mark/dispatched/", platform.MarkedRows, repeatable=True)
BUFFER_DEAD_LETTER = Endpoint("POST", "v1/webhook/buffer/mark/dead-letter/", platform.MarkedRows, repeatable=True)
WEBHOOK = Endpoint("POST", "v1/webhook/send/", platform.QueuedWebhook, _BULK)
# A room is a session's, whosever it is.
EMISSION = Endpoint("POST", "emit-websocket/", models.Acknowledgement, _BULK, needs_organization=False)
# The next two are for every organization, and asked for time and again: what one leaves undone, the next one does.
BUFFER_RUN = Endpoint("POST", "v1/webhook/buffer/process/", platform.BufferRun, _BULK, needs_organization=False)
LOG_HISTORY = Endpoint(
    "POST", "v1/execution-logs/process-log-history/", platform.LogRun, _BULK, needs_organization=False
)
