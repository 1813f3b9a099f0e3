"""The client of the internal API: a method of a few lines per endpoint, over one call."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from monitoring.prometheus_metrics import BACKEND_REQUESTS
from shared import backend_protocol as protocol
from shared.backend_protocol import Request
from shared.config import Secret, Settings
from shared.deadline import Deadline
from shared.errors import BackendUnavailableError
from shared.models import (
    Counts,
    ExecuteOptions,
    Execution,
    FileData,
    FileExecution,
    FileHash,
    FileRun,
    PipelineStatus,
    Status,
    ToolInstance,
)
from shared.retry_utils import RetryPolicy

M = TypeVar("M", bound=BaseModel)

_CONNECT_SECONDS = 5.0
_LONGEST_MESSAGE = 256  # the backend cuts there; contract section 2


class InternalAPIClient:
    """The connections of one process to the backend. Thread-safe; made after a fork, never before it."""

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self._key: Secret = settings.backend_key
        self._timeout = settings.backend_timeout
        self._policy = RetryPolicy(settings.backend_attempts, settings.backend_backoff)
        self._http = httpx.Client(
            base_url=f"{settings.backend_url}/",
            transport=transport,
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=15),
            follow_redirects=False,  # a redirect would carry the key to wherever it points
            trust_env=False,  # a proxy of the environment must not see the key
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def for_organization(self, organization_id: str) -> "OrganizationAPI":
        """The API as that organization sees it."""
        return OrganizationAPI(self, organization_id)

    def call(self, organization_id: str, request: Request[M]) -> M:
        """One logical request, all its attempts within INTERNAL_API_TIMEOUT.

        Raises:
            BackendUnavailableError: no usable answer within the attempts; BackendBusyError where it said when to retry.
            BackendRefusedError: a 4xx.
        """
        deadline = Deadline.after(self._timeout, f"{request.endpoint.method} {request.endpoint.route}")
        headers = request.headers(self._key.reveal(), organization_id)

        def send() -> M:
            return self._send(request, headers, deadline)

        return self._policy.run(send, deadline)

    def _send(self, request: Request[M], headers: Mapping[str, str], deadline: Deadline) -> M:
        endpoint = request.endpoint
        try:
            answer, body = self._exchange(request, headers, deadline)
        except httpx.HTTPError as error:
            BACKEND_REQUESTS.labels(endpoint.route, "no_answer").inc()
            what = f"{endpoint.method} {endpoint.route}: {type(error).__name__}: {error}"
            raise BackendUnavailableError(what) from error
        BACKEND_REQUESTS.labels(endpoint.route, f"{answer.status_code // 100}xx").inc()
        return protocol.decode(endpoint, answer.status_code, answer.headers, body)

    def _exchange(
        self, request: Request[M], headers: Mapping[str, str], deadline: Deadline
    ) -> tuple[httpx.Response, bytes]:
        sent = self._http.build_request(
            request.endpoint.method,
            request.path,
            params=request.params,
            json=request.json,
            headers=headers,
            timeout=httpx.Timeout(deadline.remaining, connect=deadline.cut(_CONNECT_SECONDS)),
        )
        answer = self._http.send(sent, stream=True)
        body = bytearray()
        try:
            # A time-out of httpx bounds one read, not the sum of them: a body that drips would never end.
            for chunk in answer.iter_bytes():
                body += chunk
                if deadline.over:
                    raise httpx.ReadTimeout("the body came too slowly", request=sent)
        finally:
            answer.close()
        return answer, bytes(body)


class OrganizationAPI:
    """The internal API for one organization. Every method raises as `InternalAPIClient.call` does."""

    def __init__(self, client: InternalAPIClient, organization_id: str) -> None:
        self._client = client
        self.organization_id = organization_id

    def _call(self, request: Request[M]) -> M:
        return self._client.call(self.organization_id, request)

    def execution(self, execution_id: str) -> Execution:
        """The execution, without its files. NotFoundError if there is none; another tenant's is answered 500."""
        request = protocol.EXECUTION(execution_id=execution_id)
        return self._call(replace(request, params={"file_execution": "false"}))

    def end_execution(self, execution_id: str, status: Status, counts: Counts, message: str | None) -> bool:
        """Write an execution's terminal status and its counts at once. The message is cut to 256 characters.

        Returns: False if it was terminal already, and is as it was.
        """
        body = {"status": status, "error_message": message and message[:_LONGEST_MESSAGE], **asdict(counts)}
        return not self._call(protocol.EXECUTION_STATUS(body, execution_id=execution_id)).skipped

    def start_execution(self, execution_id: str, total_files: int) -> None:
        """Say that an execution is EXECUTING, and how many files it has."""
        body = {"status": Status.EXECUTING, "total_files": total_files}
        self._call(protocol.EXECUTION_STATUS(body, execution_id=execution_id))

    def tool_instances(self, workflow_id: str) -> list[ToolInstance]:
        """The tools of a workflow."""
        return self._call(protocol.TOOL_INSTANCES(workflow_id=workflow_id)).tool_instances

    def validate_tools(self, workflow_id: str, tool_instances: Sequence[str]) -> bool:
        """Have the tools' settings checked. BackendRefusedError with status 422 and the reasons if they are wrong."""
        body = {"workflow_id": workflow_id, "tool_instances": list(tool_instances)}
        return self._call(protocol.TOOL_VALIDATION(body)).success

    def configuration(self, key: str) -> Any:
        """The organization's value of a configuration key, or the backend's default for it."""
        request = protocol.CONFIGURATION(key=key)
        return self._call(replace(request, params={"organization_id": self.organization_id})).data.value

    def source_files(self, workflow_id: str, execution_id: str, options: ExecuteOptions) -> dict[str, FileHash]:
        """The files of an ETL or TASK workflow's source, by path."""
        body = {
            "execution_id": execution_id,
            "pipeline_id": options.pipeline_id,
            "use_file_history": options.use_file_history,
        }
        return self._call(protocol.SOURCE_FILES(body, workflow_id=workflow_id)).files

    def file_execution(self, execution_id: str, workflow_id: str, file: FileHash) -> FileExecution:
        """The row of a file in an execution: got, or created."""
        body = {
            "execution_id": execution_id,
            "workflow_id": workflow_id,
            "file_hash": file.model_dump(mode="json"),
        }
        return self._call(protocol.FILE_EXECUTION(body))

    def file_status(self, file_execution_id: str, status: Status, error: str | None = None) -> None:
        """Write a file's status. The backend lets a terminal one be overwritten; the caller must not."""
        body = {"status": status, "error_message": error}
        self._call(protocol.FILE_STATUS(body, file_execution_id=file_execution_id))

    def execute_file(self, file_execution_id: str, data: FileData, file: FileHash) -> FileRun:
        """Have the tools run on a file, or hear how it stands: the same file never runs twice (contract section 3).

        Raises:
            BackendBusyError: no capacity now.
        """
        body = {
            "workflow_id": data.workflow_id,
            "execution_id": data.execution_id,
            "file_data": {**file.model_dump(mode="json"), "file_execution_id": file_execution_id},
            "organization_id": self.organization_id,
        }
        return self._call(replace(protocol.EXECUTE_FILE(body), idempotency_key=file_execution_id))

    def file_run(self, file_execution_id: str) -> FileRun:
        """How a file's run stands. NotFoundError: it was never accepted, send it again."""
        return self._call(protocol.FILE_RUN(file_execution_id=file_execution_id))

    def pipeline_status(self, pipeline_id: str, status: PipelineStatus, *, is_end: bool) -> None:
        """Write a pipeline's status."""
        self._call(protocol.PIPELINE_STATUS({"status": status, "is_end": is_end}, pipeline_id=pipeline_id))
