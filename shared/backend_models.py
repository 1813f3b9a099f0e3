"""What the internal API answers of executions and their files, and what a request of them takes that has many parts
(contract sections 2 and 3).

Only what the workers use is named; the rest is tolerated, since the backend adds some every year. A status stays text
wherever the backend may hold an illegal one. Credentials and what stands in documents are in no `repr`.
"""

from dataclasses import dataclass
from typing import Any, NewType

from pydantic import AliasChoices, AwareDatetime, ConfigDict, Field, RootModel

from shared.models import TERMINAL, FileHash, Payload, Status

OrganizationId = NewType("OrganizationId", str)
"""An organization's string id, as in `X-Organization-ID` and in messages."""


class Answer(Payload, allow_inf_nan=False):
    """What the backend says. What is no number (NaN) is no answer: nobody can wait for it, or add it up."""


class Health(Answer):
    """What the backend says of itself. `organization_id` is that of the request, known or not."""

    status: str
    service: str | None = None
    version: str | None = None
    authenticated: bool = False
    organization_id: OrganizationId | None = None


class ExecutionRow(Answer):
    """An execution without what it belongs to. `execution_time` is in seconds, from its creation to its end."""

    id: str
    workflow_id: str
    status: str
    pipeline_id: str | None = None
    total_files: int | None = None
    attempts: int | None = None
    error_message: str | None = None
    execution_log_id: str | None = None
    execution_time: float | None = None
    created_at: AwareDatetime | None = Field(default=None, strict=False)

    @property
    def is_terminal(self) -> bool:
        """Whether the execution has ended."""
        return self.status in TERMINAL


class ExecutionRows(RootModel[list[ExecutionRow]]):
    """Executions, the newest first."""

    model_config = ConfigDict(strict=True, frozen=True)


class FileExecution(Answer):
    """A file of an execution. `status` is empty for a row that was only created.

    `file_path` is absent of an API file that is read: it is answered on creation, and not stored. `file_size` is in
    bytes, `execution_time` in seconds.
    """

    id: str
    status: str
    workflow_execution_id: str | None = None
    file_name: str | None = None
    file_path: str | None = None
    file_hash: str | None = None
    file_size: int | None = None
    provider_file_uuid: str | None = None
    execution_error: str | None = None
    execution_time: float | None = None


class FileRows(RootModel[list[FileExecution]]):
    """Files of an execution, the oldest first."""

    model_config = ConfigDict(strict=True, frozen=True)


class WorkflowDefinition(Answer):
    """`workflow_definition` in the answer for an execution. `workflow_type` is API, ETL or TASK."""

    workflow_id: str
    workflow_name: str | None = None
    workflow_type: str | None = None


class SourceConfig(Answer):
    """`source_config` in the backend's answer, without the connector's credentials that stand beside it."""

    is_api: bool
    type: str | None = None


class DestinationConfig(Answer):
    """`destination_config` in the backend's answer, without the connector's credentials that stand beside it."""

    connection_type: str | None = None
    is_api: bool = False
    use_file_history: bool = False


class ExecutionOwner(Answer):
    """`organization_context` in the answer for an execution; here `organization_id` is the string id."""

    organization_id: OrganizationId
    organization_name: str | None = None


class Execution(Answer):
    """An execution as the backend answers for it.

    `file_executions` is empty unless asked for; so is `aggregated_usage_cost`, in US dollars.
    """

    execution: ExecutionRow
    source_config: SourceConfig
    workflow_definition: WorkflowDefinition | None = None
    destination_config: DestinationConfig | None = None
    organization_context: ExecutionOwner | None = None
    file_executions: list[FileExecution] = Field(default_factory=list)
    aggregated_usage_cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExecution:
    """What an execution is created with. Without a `pipeline_id` the backend answers 500."""

    workflow_id: str
    pipeline_id: str
    mode: str = "QUEUE"
    scheduled: bool = False
    single_step: bool = False
    total_files: int | None = None
    log_events_id: str | None = None
    tags: list[str] | None = None


class CreatedExecution(Answer):
    """An execution that was created just now; `execution_log_id` is where its log goes."""

    execution_id: str
    status: str
    execution_log_id: str | None = None


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """The status of one row, an execution or a file, among others that are written at once."""

    id: str
    status: Status
    error: str | None = None


class UpdatedRow(Answer):
    """One row of a batch; `error` says why it was refused."""

    id: str = Field(validation_alias=AliasChoices("id", "execution_id", "file_execution_id"))
    status: str | None = None
    error: str | None = None


class UpdatedRows(Answer):
    """What became of a batch of updates: if any failed, those called successful may have been rolled back."""

    successful_updates: list[UpdatedRow]
    failed_updates: list[UpdatedRow]
    total_processed: int


class SkippedFile(Answer):
    """A file of a batch that was not created, and why."""

    file_name: str | None = None
    error: str


class FileBatch(Answer):
    """What became of a batch of files: if any was skipped, those called created may have been rolled back."""

    batch_id: str
    total_files: int
    created_file_executions: list[FileExecution]
    skipped_files: list[SkippedFile]


def identifier(file: FileHash) -> str:
    """How the backend names a file among active ones: `uuid:path`."""
    return f"{file.provider_file_uuid}:{file.file_path}" if file.file_path else str(file.provider_file_uuid)


class ActiveFiles(Answer):
    """Which of the files asked for another execution of the workflow is processing now."""

    active_identifiers: list[str]

    def __contains__(self, file: FileHash) -> bool:
        return identifier(file) in self.active_identifiers


class History(Answer):
    """What is remembered of a file in a workflow.

    `result` is the text that was stored, `metadata` comes back as Python `repr` text. `execution_count` is how often
    the file was processed.
    """

    status: str
    result: Any = Field(default=None, repr=False)
    metadata: Any = Field(default=None, repr=False)
    error: str | None = None
    file_path: str | None = None
    provider_file_uuid: str | None = None
    execution_count: int | None = None


class Histories(Answer):
    """Which of the hashes asked for were processed, and the history of each."""

    processed_file_hashes: list[str]
    file_history_details: dict[str, History]


class CreatedHistory(Answer):
    """The history that was written, or that was there and was written over."""

    file_history: History


class Reservation(Answer):
    """Whose a file is: ours (`reserved`), nobody's (`already_processed`, with its history), or another's (`held`)."""

    reserved: bool
    already_processed: bool = False
    file_history_id: str | None = None
    file_history: History | None = None

    @property
    def held(self) -> bool:
        """Whether another has reserved the file; by whom is not said, and no route releases it."""
        return not (self.reserved or self.already_processed)


class SourceFiles(Answer):
    """The files of an ETL or TASK source, by their path."""

    files: dict[str, FileHash]


class FileRun(Answer):
    """The state of one file at the backend's tools, contract section 3.

    `poll_after` and `execution_time` are in seconds.
    """

    status: str
    file_execution_id: str | None = None
    poll_after: float = Field(default=1.0, strict=False)
    result: Any = Field(default=None, repr=False)
    error: str | None = None
    metadata: dict[str, Any] | None = None
    execution_time: float | None = None

    @property
    def running(self) -> bool:
        """Whether the tools have not ended yet."""
        return self.status.upper() in {Status.EXECUTING, Status.PENDING}

    @property
    def succeeded(self) -> bool:
        """Whether the tools ended well. Without a result they did not, whatever they say."""
        return self.status.upper() == Status.COMPLETED and self.result is not None


class Acknowledgement(Answer):
    """An answer of which only its coming matters, but for `skipped`: the row is terminal already, and stays so."""

    status: str | None = None

    @property
    def skipped(self) -> bool:
        """Whether nothing was written."""
        return self.status == "skipped"
