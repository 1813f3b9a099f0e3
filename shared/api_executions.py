"""The internal API of executions and their files (contract sections 2 and 3)."""

from dataclasses import asdict, replace

from shared import endpoints
from shared.api_bound import BoundAPI
from shared.backend_models import Execution, FileExecution, FileRun
from shared.models import Counts, ExecuteOptions, FileData, FileHash, Status

_LONGEST_MESSAGE = 256  # the backend cuts there; contract section 2


class ExecutionsAPI(BoundAPI):
    """Executions, their files, and what is remembered of files."""

    def execution(self, execution_id: str) -> Execution:
        """The execution, without its files. NotFoundError if there is none; another tenant's is answered 500."""
        request = endpoints.EXECUTION(execution_id=execution_id)
        return self._call(replace(request, query={"file_execution": "false"}))

    def end_execution(self, execution_id: str, status: Status, counts: Counts, message: str | None) -> bool:
        """Write an execution's terminal status and its counts at once. The message is cut to 256 characters.

        Returns: False if it was terminal already, and is as it was.
        """
        body = {"status": status, "error_message": message and message[:_LONGEST_MESSAGE], **asdict(counts)}
        return not self._call(endpoints.EXECUTION_STATUS(body, execution_id=execution_id)).skipped

    def start_execution(self, execution_id: str, total_files: int) -> None:
        """Say that an execution is EXECUTING, and how many files it has."""
        body = {"status": Status.EXECUTING, "total_files": total_files}
        self._call(endpoints.EXECUTION_STATUS(body, execution_id=execution_id))

    def source_files(self, workflow_id: str, execution_id: str, options: ExecuteOptions) -> dict[str, FileHash]:
        """The files of an ETL or TASK workflow's source, by path."""
        body = {
            "execution_id": execution_id,
            "pipeline_id": options.pipeline_id,
            "use_file_history": options.use_file_history,
        }
        return self._call(endpoints.SOURCE_FILES(body, workflow_id=workflow_id)).files

    def file_execution(self, execution_id: str, workflow_id: str, file: FileHash) -> FileExecution:
        """The row of a file in an execution: got, or created."""
        body = {
            "execution_id": execution_id,
            "workflow_id": workflow_id,
            "file_hash": file.model_dump(mode="json"),
        }
        return self._call(endpoints.FILE_EXECUTION(body))

    def file_status(self, file_execution_id: str, status: Status, error: str | None = None) -> None:
        """Write a file's status. The backend lets a terminal one be overwritten; the caller must not."""
        body = {"status": status, "error_message": error}
        self._call(endpoints.FILE_STATUS(body, file_execution_id=file_execution_id))

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
        return self._call(replace(endpoints.EXECUTE_FILE(body), idempotency_key=file_execution_id))

    def file_run(self, file_execution_id: str) -> FileRun:
        """How a file's run stands. NotFoundError: it was never accepted, send it again."""
        return self._call(endpoints.FILE_RUN(file_execution_id=file_execution_id))
