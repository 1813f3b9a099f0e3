"""The internal API of executions and their files (contract sections 2 and 3)."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from shared import backend_models as models
from shared import endpoints
from shared.api_bound import BoundAPI
from shared.backend_protocol import without_none
from shared.errors import BackendRefusedError
from shared.models import Counts, ExecuteOptions, FileData, FileHash, Status

_LONGEST_MESSAGE = 256  # the backend cuts there; contract section 2
_HELD = 409
_PLACE = {"file_name", "file_path", "source_connection_type"}
# What an execution was asked for, and only the tools can do.
_OPTIONS = {"llm_profile_id", "custom_data", "hitl_queue_name", "hitl_packet_id"}
_CONTENT = {"file_hash", "file_size", "mime_type", "provider_file_uuid"}


def _described(file: FileHash) -> dict[str, Any]:
    return without_none(file.described())


def _options(data: FileData) -> dict[str, Any]:
    return data.model_dump(include=_OPTIONS, exclude_none=True)


def _statuses(id_name: str, updates: Iterable[models.StatusUpdate]) -> list[dict[str, str]]:
    named = ({id_name: update.id, "status": update.status, "error_message": update.error} for update in updates)
    return [without_none(fields) for fields in named]


class ExecutionsAPI(BoundAPI):
    """Executions, their files, and what is remembered of files."""

    def execution(self, execution_id: str, *, with_files: bool = False, with_cost: bool = False) -> models.Execution:
        """Read an execution (contract section 2, execution).

        Args:
            execution_id: whose.
            with_files: whether its files come along, however many there are.
            with_cost: whether its cost so far comes along, in US dollars.

        Raises:
            NotFoundError: there is none.
            BackendFailedError: also where it is another organization's.
        """
        query = {"file_execution": str(with_files).lower(), "include_cost": "true" if with_cost else None}
        return self._call(replace(endpoints.EXECUTION(execution_id=execution_id), query=query))

    def executions(self, workflow_id: str, statuses: Iterable[Status]) -> list[models.ExecutionRow]:
        """The executions of a workflow that have one of these statuses, the newest first (contract section 2).

        Returns: none for an unknown workflow or organization; a malformed id is answered 500.
        """
        query = {"workflow_id": workflow_id, "status__in": ",".join(statuses)}
        return self._call(replace(endpoints.EXECUTIONS(), query=query)).root

    def create_execution(self, execution: models.NewExecution) -> models.CreatedExecution:
        """Create an execution, PENDING (contract section 2, execution create). Sent once: each makes another.

        Raises:
            NotFoundError: no such workflow.
        """
        return self._call(endpoints.EXECUTION_CREATION(asdict(execution)))

    def start_execution(self, execution_id: str, total_files: int) -> None:
        """Say that an execution is EXECUTING, and how many files it has (contract section 2, execution status).

        The backend lets a terminal execution be started again; the caller must not. An unknown id is answered 500.
        """
        body = {"status": Status.EXECUTING, "total_files": total_files}
        self._call(endpoints.EXECUTION_STATUS(body, execution_id=execution_id))

    def end_execution(self, execution_id: str, status: Status, counts: Counts, message: str | None) -> bool:
        """Write an execution's terminal status and its counts at once. The message is cut to 256 characters.

        Most rows have no guard: a terminal status may be overwritten, and the caller must not. An unknown id is
        answered 500 (contract section 2, execution status).

        Returns: False if it was terminal already, and is as it was.

        Raises:
            BackendRefusedError: with status 400, if successful and failed files are more than there are.
        """
        body = {"status": status, "error_message": message and message[:_LONGEST_MESSAGE], **asdict(counts)}
        return not self._call(endpoints.EXECUTION_STATUS(body, execution_id=execution_id)).skipped

    def execution_statuses(self, updates: Iterable[models.StatusUpdate]) -> models.UpdatedRows:
        """Write many executions' statuses (contract section 2, many executions' status).

        Unknown ids are among the failed. One database error undoes the whole batch, and the answer names every row as
        if not: read what matters afterwards.

        Raises:
            BackendRefusedError: with status 400, if there are none.
        """
        return self._call(endpoints.EXECUTION_STATUSES({"updates": _statuses("execution_id", updates)}))

    def source_files(self, workflow_id: str, execution_id: str, options: ExecuteOptions) -> dict[str, FileHash]:
        """The files of an ETL or TASK workflow's source, by path (contract section 2, source files).

        The backend asks a third system, which takes time. The files hold that system's credentials.

        Raises:
            NotFoundError: no such workflow.
        """
        body = {
            "execution_id": execution_id,
            "pipeline_id": options.pipeline_id,
            "use_file_history": options.use_file_history,
        }
        return self._call(endpoints.SOURCE_FILES(body, workflow_id=workflow_id)).files

    def file_batch(self, execution_id: str, files: Iterable[FileHash], *, is_api: bool) -> models.FileBatch:
        """Create rows for many files at once (contract section 2, file batch). Sent once.

        One duplicate undoes the whole batch, and the answer lists rows as created that were rolled back.
        `file_execution`, one by one, has no such trap.

        Raises:
            NotFoundError: no such execution.
            BackendRefusedError: with status 400, if there are no files or the id is malformed.
        """
        rows = [_described(file) for file in files]
        body = {"workflow_execution_id": execution_id, "files": rows, "is_api": is_api}
        return self._call(endpoints.FILE_BATCH(body))

    def file_execution(self, execution_id: str, workflow_id: str, file: FileHash) -> models.FileExecution:
        """The row of a file in an execution: got, or created (contract section 2, file execution).

        The same file, by its hash or its source's id of it, gives the same row.

        Raises:
            NotFoundError: no such execution.
        """
        body = {"execution_id": execution_id, "workflow_id": workflow_id, "file_hash": _described(file)}
        return self._call(endpoints.FILE_EXECUTION(body))

    def file_execution_row(self, file_execution_id: str) -> models.FileExecution:
        """The row of a file by its id (contract section 2, file execution). An API file's has no `file_path`.

        Raises:
            NotFoundError: there is none; another organization's counts as none.
        """
        return self._call(endpoints.FILE_EXECUTION_ROW(file_execution_id=file_execution_id))

    def file_executions(self, execution_id: str) -> list[models.FileExecution]:
        """The rows of all files of an execution, the oldest first; none for an unknown id (contract section 2)."""
        return self._call(replace(endpoints.FILE_EXECUTIONS(), query={"execution_id": execution_id})).root

    def file_status(self, file_execution_id: str, status: Status, error: str | None = None) -> None:
        """Write a file's status (contract section 2, file status).

        The backend lets a terminal one be overwritten; the caller must not. It measures the time itself.

        Raises:
            NotFoundError: there is no such file.
        """
        body = {"status": status, "error_message": error}
        self._call(endpoints.FILE_STATUS(body, file_execution_id=file_execution_id))

    def file_statuses(self, updates: Iterable[models.StatusUpdate]) -> models.UpdatedRows:
        """Write many files' statuses (contract section 2, many files' status). As `execution_statuses`."""
        return self._call(endpoints.FILE_STATUSES({"status_updates": _statuses("file_execution_id", updates)}))

    def active_files(self, workflow_id: str, execution_id: str | None, files: Sequence[FileHash]) -> models.ActiveFiles:
        """Which files another execution of the workflow is processing now (contract section 2, active duplicates).

        Args:
            workflow_id: whose executions.
            execution_id: ours, which does not count; with None all do.
            files: those to look for, each with its `provider_file_uuid`; a new row is not active before it is PENDING.

        Raises:
            BackendRefusedError: with status 400, if there are no files or one has no `provider_file_uuid`.
        """
        wanted = [without_none({"uuid": file.provider_file_uuid, "path": file.file_path}) for file in files]
        body = {"workflow_id": workflow_id, "files": wanted, "current_execution_id": execution_id}
        return self._call(endpoints.ACTIVE_FILES(body))

    def count_file(self, workflow_id: str, execution_id: str, outcome: Literal["completed", "failed"]) -> None:
        """Count one more file of an execution (contract section 2, file counters). Sent once: each time counts.

        Raises:
            NotFoundError: no such execution.
        """
        body = {"workflow_id": workflow_id, "execution_id": execution_id, "increment_type": outcome}
        self._call(endpoints.FILE_COUNT(body))

    def file_histories(self, workflow_id: str, file_hashes: Sequence[str]) -> dict[str, models.History]:
        """What is remembered of files that were processed, by their SHA-256 (contract section 2, history of many).

        Returns: only files that COMPLETED.

        Raises:
            NotFoundError: no such workflow.
            BackendRefusedError: with status 400, if there are no hashes.
        """
        body = {"workflow_id": workflow_id, "file_hashes": list(file_hashes), "organization_id": self.organization_id}
        found = self._call(endpoints.FILE_HISTORIES(body))
        details = found.file_history_details
        return {key: details[key] for key in found.processed_file_hashes if key in details}

    def remember_file(self, workflow_id: str, file: FileHash, run: models.FileRun, *, is_api: bool) -> models.History:
        """Remember how a file ended, over what was known of it (contract section 2, history create).

        Args:
            workflow_id: the workflow that it went through.
            file: the file, with its `file_hash`.
            run: how it ended; a result that is no text is stored as JSON.
            is_api: whether it came through an API deployment.

        Returns: what is stored, under COMPLETED or ERROR: of any other word the backend would make COMPLETED.

        Raises:
            NotFoundError: no such workflow.
            BackendRefusedError: with status 400, if the file has no hash.
        """
        text = run.result if run.result is None or isinstance(run.result, str) else json.dumps(run.result)
        status = Status.COMPLETED if run.succeeded else Status.ERROR
        ended = {"status": status, "result": text, "error": run.error, "metadata": run.metadata}
        whose = {"workflow_id": workflow_id, "organization_id": self.organization_id, "is_api": is_api}
        body = {**file.model_dump(include=_PLACE | _CONTENT), **whose, **ended}
        return self._call(endpoints.FILE_HISTORY(body)).file_history

    def reserve_file(self, workflow_id: str, file: FileHash, worker_id: str) -> models.Reservation:
        """Reserve a file for a worker, by its hash (contract section 2, history reserve).

        Sent once: after a lost answer the file is held, perhaps by us. Who holds it is not said, and nothing releases
        it, so no worker of ours calls this.

        Returns: a 409 is no error, but `held`.

        Raises:
            NotFoundError: no such workflow.
        """
        body = {"workflow_id": workflow_id, "cache_key": file.file_hash, "worker_id": worker_id}
        of_file = {"provider_file_uuid": file.provider_file_uuid, "file_path": file.file_path}
        try:
            return self._call(endpoints.FILE_RESERVATION({**body, **of_file}))
        except BackendRefusedError as refused:
            if refused.status != _HELD:
                raise
            return models.Reservation(reserved=False)

    def execute_file(self, file_execution_id: str, data: FileData, file: FileHash) -> models.FileRun:
        """Have the tools run on a file, or hear how it stands: the same file never runs twice (contract section 3).

        Raises:
            BackendBusyError: no capacity now.
            NotFoundError: no such file.
            BackendRefusedError: with status 400, if the file is of another execution.
        """
        body = {
            "workflow_id": data.workflow_id,
            "execution_id": data.execution_id,
            "file_data": {**_options(data), **_described(file), "file_execution_id": file_execution_id},
            "organization_id": self.organization_id,
        }
        return self._call(replace(endpoints.EXECUTE_FILE(body), idempotency_key=file_execution_id))

    def file_run(self, file_execution_id: str) -> models.FileRun:
        """How a file's run stands. NotFoundError: it was never accepted, send it again (contract section 3)."""
        return self._call(endpoints.FILE_RUN(file_execution_id=file_execution_id))
