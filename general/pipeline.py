"""ETL and TASK pipelines: the backend lists the files of the workflow's source."""

from shared.api_client import OrganizationAPI
from shared.models import ExecuteRequest, FileHash


def source_files(backend: OrganizationAPI, request: ExecuteRequest) -> list[FileHash]:
    """The files that are in the source now."""
    return list(backend.source_files(request.workflow_id, request.execution_id, request.options).values())
