"""The internal API of what executions belong to: workflows, pipelines, organizations,
notifications, logs (contract section 2).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shared import endpoints
from shared.api_bound import BoundAPI
from shared.backend_models import ToolInstance
from shared.models import PipelineStatus


class PlatformAPI(BoundAPI):
    """Workflows and their tools, pipelines, organizations, notifications, usage and logs."""

    def tool_instances(self, workflow_id: str) -> list[ToolInstance]:
        """The tools of a workflow."""
        return self._call(endpoints.TOOL_INSTANCES(workflow_id=workflow_id)).tool_instances

    def validate_tools(self, workflow_id: str, tool_instances: Sequence[str]) -> bool:
        """Have the tools' settings checked. BackendRefusedError with status 422 and the reasons if they are wrong."""
        body = {"workflow_id": workflow_id, "tool_instances": list(tool_instances)}
        return self._call(endpoints.TOOL_VALIDATION(body)).success

    def configuration(self, key: str) -> Any:
        """The organization's value of a configuration key, or the backend's default for it."""
        request = endpoints.CONFIGURATION(key=key)
        return self._call(replace(request, query={"organization_id": self.organization_id})).data.value

    def pipeline_status(self, pipeline_id: str, status: PipelineStatus, *, is_end: bool) -> None:
        """Write a pipeline's status."""
        self._call(endpoints.PIPELINE_STATUS({"status": status, "is_end": is_end}, pipeline_id=pipeline_id))
