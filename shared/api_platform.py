"""The internal API of what executions belong to, and of those who want to hear of them: workflows, pipelines,
organizations, notifications (contract section 2).
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from shared import endpoints
from shared import platform_models as models
from shared.api_bound import BoundAPI
from shared.models import PipelineStatus


class PlatformAPI(BoundAPI):
    """Workflows and their tools, pipelines, organizations, notifications and usage."""

    def workflow(self, workflow_id: str) -> models.Workflow:
        """A workflow, with the decrypted credentials of both its ends: never log it (contract section 2, workflow).

        Raises:
            NotFoundError: there is none, or it is another organization's.
        """
        return self._call(endpoints.WORKFLOW(workflow_id=workflow_id))

    def workflow_endpoints(self, workflow_id: str) -> models.WorkflowEndpoints:
        """The two ends of a workflow. Raises, and is as secret, as `workflow` (contract section 2, endpoints)."""
        return self._call(endpoints.WORKFLOW_ENDPOINTS(workflow_id=workflow_id))

    def tool_instances(self, workflow_id: str) -> list[models.ToolInstance]:
        """The tools of a workflow, in their order (contract section 2, tools). NotFoundError: no such workflow."""
        return self._call(endpoints.TOOL_INSTANCES(workflow_id=workflow_id)).tool_instances

    def validate_tools(self, workflow_id: str, tool_instances: Sequence[str]) -> bool:
        """Have the tools' settings checked (contract section 2, tool validation).

        Raises:
            BackendRefusedError: with status 422 and the reasons, if they are wrong.
        """
        body = {"workflow_id": workflow_id, "tool_instances": list(tool_instances)}
        return self._call(endpoints.TOOL_VALIDATION(body)).success

    def pipeline(self, pipeline_id: str) -> models.Pipeline:
        """A pipeline, or an API deployment by its id (contract section 2, pipeline).

        The backend is asked to check that it is active. How it answers for one that is not was never recorded: `active`
        says so, or BackendRefusedError.

        Raises:
            NotFoundError: there is none, or it is another organization's.
        """
        return self._call(replace(endpoints.PIPELINE(pipeline_id=pipeline_id), query={"check_active": "true"})).pipeline

    def pipeline_status(self, pipeline_id: str, status: PipelineStatus, *, is_end: bool) -> None:
        """Write a pipeline's status, and with `is_end` the time of its last run (contract section 2, pipeline).

        For an API deployment it is accepted, and nothing is written.

        Raises:
            NotFoundError: there is none.
        """
        self._call(endpoints.PIPELINE_STATUS({"status": status, "is_end": is_end}, pipeline_id=pipeline_id))

    def api_deployment(self, api_id: str) -> models.ApiDeployment:
        """An API deployment (contract section 2). NotFoundError: there is none, or the id is malformed."""
        return self._call(endpoints.API_DEPLOYMENT(api_id=api_id)).pipeline

    def organization(self) -> models.OrganizationContext:
        """The organization itself, with its numeric key (contract section 2). An unknown one is answered 500."""
        return self._call(endpoints.ORGANIZATION(organization_id=self.organization_id))

    def configuration(self, key: str) -> Any:
        """The organization's value of a configuration key, or the backend's default for it (contract section 2).

        Raises:
            NotFoundError: no such organization.
            BackendRefusedError: with status 400, if there is no such key.
        """
        request = endpoints.CONFIGURATION(key=key)
        return self._call(replace(request, query={"organization_id": self.organization_id})).data.value

    def usage(self, file_execution_id: str) -> models.Usage:
        """What a file's tools used: tokens and US dollars; nothing for an unknown id (contract section 2, usage)."""
        return self._call(endpoints.TOKEN_USAGE(file_execution_id=file_execution_id)).data.usage

    def pipeline_notifications(self, pipeline_id: str, execution_id: str | None = None) -> models.Notifications:
        """The webhooks of a pipeline, and the counts of an execution if one is named (contract section 2).

        They hold credentials. An API deployment's id is understood too.

        Raises:
            NotFoundError: no such pipeline.
        """
        request = endpoints.PIPELINE_NOTIFICATIONS(pipeline_id=pipeline_id)
        return self._call(replace(request, query={"execution_id": execution_id}))

    def api_notifications(self, api_id: str, execution_id: str | None = None) -> models.Notifications:
        """The webhooks of an API deployment. As `pipeline_notifications`, but an unknown id is answered 500."""
        request = endpoints.API_NOTIFICATIONS(api_id=api_id)
        return self._call(replace(request, query={"execution_id": execution_id}))

    def enqueue_notification(self, event: models.NotificationEvent) -> str | None:
        """Have a webhook told of the end of a run, with others when they are due (contract section 2, buffer).

        Sent once: each is another event.

        Returns: where it waits; None if the webhook is for failures only, and this is none.

        Raises:
            NotFoundError: this backend has no buffer.
            BackendFailedError: also where there is no such webhook.
        """
        body = {**asdict(event), "timestamp": event.timestamp.isoformat()}
        return self._call(endpoints.BUFFER_EVENT(body)).buffer_row_id

    def mark_dispatched(self, buffer_row_ids: Sequence[str], organization: models.OrganizationKey) -> int:
        """Say that events have reached their webhook (contract section 2, buffer).

        Args:
            buffer_row_ids: where they waited.
            organization: whose they are, by its numeric key.

        Returns: how many changed; those that were marked already do not.

        Raises:
            BackendRefusedError: with status 400, if there are none.
        """
        body = {"buffer_row_ids": list(buffer_row_ids), "organization_id": organization}
        return self._call(endpoints.BUFFER_DISPATCHED(body)).updated

    def mark_dead(self, buffer_row_ids: Sequence[str], organization: models.OrganizationKey) -> int:
        """Say that events will never reach their webhook. As `mark_dispatched`."""
        body = {"buffer_row_ids": list(buffer_row_ids), "organization_id": organization}
        return self._call(endpoints.BUFFER_DEAD_LETTER(body)).updated

    def send_webhook(self, webhook: models.Webhook) -> models.QueuedWebhook:
        """Have the backend send a webhook, past its buffer (contract section 2, webhook send). Each is sent again.

        Raises:
            BackendRefusedError: with status 400, for an address or an authorization that is none.
        """
        return self._call(endpoints.WEBHOOK(asdict(webhook)))
