"""The types of messages (contract section 1), and the words they share with the backend's answers.

Parsed strictly, once, where data enters; unknown fields are tolerated, since the backend adds some every year.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Secret,
    StringConstraints,
    ValidationError,
    model_validator,
)

from shared.errors import PayloadError


class Status(StrEnum):
    """Of executions and of files. Terminal: COMPLETED, STOPPED, ERROR."""

    PENDING = "PENDING"
    EXECUTING = "EXECUTING"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    ERROR = "ERROR"


class PipelineStatus(StrEnum):
    """Of ETL and TASK pipelines."""

    YET_TO_START = "YET_TO_START"
    INPROGRESS = "INPROGRESS"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


class Stage(StrEnum):
    """Where a file is, for those who watch."""

    QUEUED = "queued"
    STARTED = "started"
    EXECUTING = "executing"
    STORING = "storing"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Counts:
    """The files of an execution. The sum of the last two may not exceed the first."""

    total_files: int
    successful_files: int
    failed_files: int


TERMINAL = frozenset({Status.COMPLETED, Status.STOPPED, Status.ERROR})

_LONGEST_ERROR = 1_000

NonEmpty = Annotated[str, StringConstraints(min_length=1)]


class Payload(BaseModel):
    """What comes from outside. A null counts as absent: senders write either."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data


class FileHash(Payload):
    """One source file, `FileHashData` in the contract. Fields we do not know are carried through to the backend.

    `file_size` is in bytes; `file_hash` is a SHA-256 in hex, absent for sources that were only listed.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    file_name: NonEmpty
    file_path: str | None = None
    file_hash: str | None = None
    file_size: int | None = None
    file_number: int | None = None
    mime_type: str | None = None
    provider_file_uuid: str | None = None
    source_connection_type: str | None = None
    fs_metadata: dict[str, Any] | None = None
    is_executed: bool = False
    use_file_history: bool = False
    connector_metadata: Secret[dict[str, Any]] | None = None  # the source's credentials

    def described(self) -> dict[str, Any]:
        """The file as the contract writes it, with the source's credentials."""
        # Not in pydantic's own JSON: it fails in its own ways at what JSON cannot hold, and a request has one for that.
        found = self.model_dump(exclude={"connector_metadata"})
        secret = self.connector_metadata
        return found if secret is None else found | {"connector_metadata": secret.get_secret_value()}


class ExecuteOptions(Payload):
    """The keyword arguments of `async_execute_bin`."""

    scheduled: bool = False
    execution_mode: str | None = None
    pipeline_id: str | None = None
    log_events_id: str | None = None
    use_file_history: bool = False
    llm_profile_id: str | None = None
    hitl_queue_name: str | None = None
    custom_data: dict[str, Any] | None = None
    hitl_packet_id: str | None = None
    transport: str = "celery"


class ExecuteRequest(Payload):
    """One kick-off: the arguments of `async_execute_bin`, and its options."""

    organization_id: NonEmpty
    workflow_id: NonEmpty
    execution_id: NonEmpty
    files: dict[str, FileHash]
    options: ExecuteOptions


class FileData(Payload):
    """What every file of a batch shares, `WorkerFileData` in the contract. Fields we do not use are carried through."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    workflow_id: NonEmpty
    execution_id: NonEmpty
    organization_id: NonEmpty
    pipeline_id: str | None = None
    single_step: bool = False
    scheduled: bool = False
    execution_mode: str | None = None
    use_file_history: bool = False
    hitl_queue_name: str | None = None
    hitl_packet_id: str | None = None
    llm_profile_id: str | None = None
    custom_data: dict[str, Any] | None = None
    log_events_id: str | None = None


def _named(item: Any) -> Any:
    """A batch's item is `[file_name, FileHashData]`, or a mapping that holds its `file_name`."""
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[1], Mapping):
        return {"file_name": item[0], **item[1]}
    return item


class Batch(Payload):
    """`batch_data`: files of one execution that one task works through, in this order."""

    files: list[Annotated[FileHash, BeforeValidator(_named)]]
    file_data: FileData

    def message(self) -> dict[str, Any]:
        """The batch as the contract writes it, with the source's credentials."""
        files = [[file.file_name, file.described()] for file in self.files]
        return {"files": files, "file_data": self.file_data.model_dump(mode="json")}


def _cut(text: Any) -> Any:
    """The beginning of a text: those of all files of an execution go through the broker in one message."""
    return text[:_LONGEST_ERROR] if isinstance(text, str) else text


class FileResult(Payload):
    """How one file ended, without its text: that is pushed to the backend's results, not through the broker.

    `execution_time` is in seconds. `status` is COMPLETED, ERROR or, for a file stopped before us, STOPPED.
    """

    file: str
    file_execution_id: str | None = None
    status: Status = Field(strict=False)
    error: Annotated[str | None, BeforeValidator(_cut)] = None
    execution_time: float = 0.0
    skipped: bool = False


class BatchResult(Payload):
    """What a batch returns. `execution_time` is in seconds."""

    total_files: int = Field(ge=0)
    successful_files: int = Field(ge=0)
    failed_files: int = Field(ge=0)
    execution_time: float = 0.0
    organization_id: str | None = None
    file_results: list[FileResult] = Field(default_factory=list)
    errors: dict[str, str] = Field(default_factory=dict)
    skipped_already_completed: int = 0
    skipped_active_duplicate: int = 0


class Callback(Payload):
    """The arguments of the two callbacks."""

    results: list[Any]
    execution_id: NonEmpty
    organization_id: NonEmpty
    pipeline_id: str | None = None


class Context(Payload):
    """What all batches of an execution need, fetched once. No credentials: whoever reads the cache may see it."""

    execution_id: NonEmpty
    workflow_id: NonEmpty
    organization_id: NonEmpty
    pipeline_id: str | None = None
    is_api: bool

    @classmethod
    def read(cls, text: str | None, execution_id: str, organization_id: str) -> "Context | None":
        """The context of that execution and organization; None if the text holds none, or another's."""
        try:
            found = cls.model_validate_json(text or "")
        except ValidationError:
            return None
        return found if (found.execution_id, found.organization_id) == (execution_id, organization_id) else None


P = TypeVar("P", bound=Payload)


def parse(model: type[P], data: Any) -> P:
    """A payload as its type.

    Raises:
        PayloadError: every field that is wrong, without the values, which may be somebody's document.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise PayloadError(f"{model.__name__} has not the contract's shape: {'; '.join(mistakes(error))}") from None


def mistakes(error: ValidationError) -> list[str]:
    """The fields that are wrong, without what stands in them: it may be somebody's document."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in found]
