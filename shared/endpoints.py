"""The rows of the contract's table of the internal API (sections 2 and 3), and which of them may be sent again."""

from shared import backend_models as models
from shared.backend_protocol import Endpoint, RouteGroup

HEALTH = Endpoint("GET", "v1/health/", models.Health, needs_organization=False)
EXECUTION = Endpoint("GET", "v1/workflow-execution/{execution_id}/", models.Execution)
# Repeating a status is harmless: the row ends as it was.
EXECUTION_STATUS = Endpoint(
    "POST", "v1/workflow-execution/{execution_id}/update_status/", models.Acknowledgement, repeatable=True
)
TOOL_INSTANCES = Endpoint("GET", "v1/workflow-manager/workflow/{workflow_id}/tool-instances/", models.ToolInstances)
TOOL_VALIDATION = Endpoint("POST", "v1/tool-execution/validate/", models.Validation, RouteGroup.BULK, repeatable=True)
CONFIGURATION = Endpoint("GET", "v1/configuration/{key}/", models.Configuration)
SOURCE_FILES = Endpoint(
    "POST", "v1/workflow-manager/source-files/{workflow_id}/", models.SourceFiles, RouteGroup.BULK, repeatable=True
)
# The same key gives the same row.
FILE_EXECUTION = Endpoint("POST", "v1/file-execution/", models.FileExecution, repeatable=True)
FILE_STATUS = Endpoint("POST", "v1/file-execution/{file_execution_id}/status/", models.Acknowledgement, repeatable=True)
# Carries an Idempotency-Key.
EXECUTE_FILE = Endpoint("POST", "v1/workflow-manager/execute-file/", models.FileRun, RouteGroup.TOOLS)
FILE_RUN = Endpoint("GET", "v1/workflow-manager/execute-file/{file_execution_id}/", models.FileRun)
PIPELINE_STATUS = Endpoint("PUT", "v1/pipeline/{pipeline_id}/", models.Acknowledgement)
