"""What the internal API answers of what executions belong to, and of those who want to hear of them
(contract section 2). As in `shared/backend_models.py`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, NewType

from pydantic import AliasChoices, BeforeValidator, Field, Secret

from shared.backend_models import Answer, OrganizationId

OrganizationKey = NewType("OrganizationKey", int)
"""An organization's number in the backend's tables; only the notification buffer asks for it."""

# The organization's context says its key in digits.
_Key = Annotated[OrganizationKey, BeforeValidator(lambda said: int(said) if isinstance(said, str) else said)]


class Connector(Answer):
    """Where files come from, or results go to. `connector_metadata` holds decrypted credentials: never log it."""

    connector_id: str
    connector_name: str | None = None
    connector_metadata: Secret[dict[str, Any]] = Secret({})


class WorkflowEnd(Answer):
    """One end of a workflow. `configuration` may hold the connector's decrypted credentials: never log it."""

    endpoint_id: str
    endpoint_type: str
    connection_type: str
    configuration: Secret[dict[str, Any]] = Secret({})
    connector_instance: Connector | None = None


class Workflow(Answer):
    """A workflow and its two ends, whose credentials are decrypted."""

    id: str
    workflow_name: str
    workflow_type: str
    organization_id: OrganizationId
    source_config: WorkflowEnd
    destination_config: WorkflowEnd
    is_active: bool = True


class WorkflowEndpoints(Answer):
    """The two ends of a workflow, whose credentials are decrypted."""

    workflow_id: str
    source_endpoint: WorkflowEnd
    destination_endpoint: WorkflowEnd
    has_api_endpoints: bool


class ToolInstance(Answer):
    """One tool of a workflow."""

    id: str
    tool_id: str


class ToolInstances(Answer):
    """The tools of a workflow, in their order."""

    tool_instances: list[ToolInstance]


class Validation(Answer):
    """The answer to tool validation."""

    success: bool


class Pipeline(Answer):
    """A pipeline, or an API deployment, which is answered for under the same path (`is_api`).

    `active` is what a schedule looks at. `last_run_status` may be anything: the backend stores what it is told.
    """

    id: str
    workflow: str
    organization: OrganizationKey
    active: bool = Field(validation_alias=AliasChoices("active", "is_active"))
    is_api: bool
    pipeline_name: str
    resolved_pipeline_type: str | None = None
    last_run_status: str | None = None


class PipelineAnswer(Answer):
    """The envelope of a pipeline."""

    pipeline: Pipeline


class ApiDeployment(Answer):
    """An API deployment."""

    id: str
    workflow: str
    organization: OrganizationKey
    is_active: bool
    api_name: str
    display_name: str | None = None


class ApiDeploymentAnswer(Answer):
    """The envelope of an API deployment, which the backend calls a pipeline there."""

    pipeline: ApiDeployment


class OrganizationContext(Answer):
    """An organization by its key. The backend calls the key `organization_id`, and says it in digits."""

    key: _Key = Field(validation_alias=AliasChoices("key", "organization_id"))
    organization_name: str


class ConfigurationValue(Answer):
    """`data` in the answer for one configuration key."""

    value: Any


class Configuration(Answer):
    """The answer for one configuration key."""

    data: ConfigurationValue


class Notification(Answer):
    """A webhook to call when a run ends. `platform` is API or SLACK, `max_retries` counts sends after the first.

    The address of a SLACK webhook is its credential.
    """

    id: str
    url: str = Field(repr=False)
    authorization_type: str
    authorization_key: str | None = Field(default=None, repr=False)
    authorization_header: str | None = None
    max_retries: int = 0
    platform: str | None = None
    notify_on_failures: bool = False
    is_active: bool


class ExecutionCounts(Answer):
    """The files of an execution as its notifications name them; absent where none was asked for."""

    total_files: int | None = None
    successful_files: int | None = None
    failed_files: int | None = None


class Notifications(Answer):
    """The webhooks of a pipeline or API deployment, and the counts of the execution that was named."""

    notifications: list[Notification]
    pipeline_name: str | None = Field(default=None, validation_alias=AliasChoices("pipeline_name", "api_name"))
    pipeline_type: str | None = None
    execution_counts: ExecutionCounts = ExecutionCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationEvent:
    """The end of a run, for one webhook. `timestamp` has a time zone."""

    notification_id: str
    type: str
    execution_id: str
    pipeline_id: str
    pipeline_name: str
    status: str
    platform: str
    timestamp: datetime
    error_message: str | None = None
    additional_data: dict[str, Any] | None = None


class BufferedEvent(Answer):
    """Where an event waits; nowhere if its webhook is for failures only, and it is none."""

    buffer_row_id: str | None = None


class BufferRun(Answer):
    """What became of the events that were due: rows sent, given up, taken back from a process that died, deleted."""

    dispatched_groups: int
    dispatched_rows: int
    dead_letter_rows: int = 0
    reclaimed_rows: int = 0
    gc_deleted_rows: int = 0


class MarkedRows(Answer):
    """How many rows changed: only those that were being sent do."""

    updated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook for the backend to send, past its buffer. `timeout` and `retry_delay` are in whole seconds.

    `authorization_type` is NONE, BEARER, API_KEY or CUSTOM_HEADER; in lower case it is refused.
    """

    url: str = field(repr=False)
    payload: dict[str, Any] = field(repr=False)
    authorization_type: str = "NONE"
    authorization_key: str | None = field(default=None, repr=False)
    headers: dict[str, str] | None = field(default=None, repr=False)
    timeout: int = 30
    max_retries: int = 3
    retry_delay: int = 10
    notification_id: str | None = None


class QueuedWebhook(Answer):
    """A webhook that the backend has handed to the broker."""

    task_id: str
    status: str


class Usage(Answer):
    """What a file cost: tokens, and US dollars. Absent where nothing was used."""

    embedding_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost_in_dollars: float | None = None


class UsageData(Answer):
    """`data` in the answer for a file's usage."""

    usage: Usage


class UsageAnswer(Answer):
    """The envelope of a file's usage."""

    data: UsageData


class LogRun(Answer):
    """What became of the log records that waited: stored, or skipped since no execution is theirs."""

    processed_count: int
    skipped_count: int
    total_logs: int
    organizations_processed: int = 0
