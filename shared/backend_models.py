"""What the internal API answers (contract sections 2 and 3).

Only what the workers use is named; the rest is tolerated, since the backend adds some every year.
"""

from typing import Any

from pydantic import Field

from shared.models import TERMINAL, FileHash, Payload, Status


class Health(Payload):
    """What the backend says of itself."""

    status: str
    version: str | None = None
    authenticated: bool = False


class ExecutionRow(Payload):
    """`execution` in the backend's answer. `status` stays text: the backend stores illegal ones."""

    id: str
    workflow_id: str
    status: str
    pipeline_id: str | None = None
    total_files: int | None = None
    error_message: str | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the execution has ended."""
        return self.status in TERMINAL


class SourceConfig(Payload):
    """`source_config` in the backend's answer, without the connector's credentials that stand beside it."""

    is_api: bool


class Execution(Payload):
    """An execution as the backend answers for it."""

    execution: ExecutionRow
    source_config: SourceConfig


class ToolInstance(Payload):
    """One tool of a workflow."""

    id: str
    tool_id: str


class ToolInstances(Payload):
    """The tools of a workflow, in their order."""

    tool_instances: list[ToolInstance]


class Validation(Payload):
    """The answer to tool validation."""

    success: bool


class ConfigurationValue(Payload):
    """`data` in the answer for one configuration key."""

    value: Any


class Configuration(Payload):
    """The answer for one configuration key."""

    data: ConfigurationValue


class SourceFiles(Payload):
    """The files of an ETL or TASK source, by their path."""

    files: dict[str, FileHash]


class FileExecution(Payload):
    """A file of an execution. `status` is empty for a row that was only created."""

    id: str
    status: str
    execution_error: str | None = None


class FileRun(Payload):
    """The state of one file at the backend's tools, contract section 3.

    `poll_after` and `execution_time` are in seconds.
    """

    status: str
    file_execution_id: str | None = None
    poll_after: float = Field(default=1.0, strict=False)
    result: Any = None
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


class Acknowledgement(Payload):
    """An answer of which only its coming matters, but for `skipped`: the row is terminal already, and stays so."""

    status: str | None = None

    @property
    def skipped(self) -> bool:
        """Whether nothing was written."""
        return self.status == "skipped"
