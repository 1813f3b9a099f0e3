"""The files of an execution as the backend has them: what the reaper goes by, when the batches cannot be asked."""

from typing import Any

from shared.api_client import OrganizationAPI
from shared.backend_models import FileExecution
from shared.call import Call
from shared.execution_state import Run
from shared.models import TERMINAL, BatchResult, FileResult, Status
from shared.orchestration import fold, planned


def results_of_rows(call: Call, backend: OrganizationAPI, run: Run, reason: str) -> BatchResult:
    """The rows as one batch's result. A file that has not ended ends here, in error, and its caller is told so."""
    results = [_result(call, backend, run, row, reason) for row in backend.file_executions(run.execution_id)]
    if run.is_api:
        _tell_of_the_rest(call, run, {result.file for result in results}, reason)
    return fold(results, run.organization_id)


def _result(call: Call, backend: OrganizationAPI, run: Run, row: FileExecution, reason: str) -> FileResult:
    name = row.file_name or row.id
    if row.status in TERMINAL:
        return FileResult(
            file=name, file_execution_id=row.id, status=Status(row.status), error=row.execution_error or None
        )
    if run.is_api:
        call.state.push_api_result(run.workflow_id, run.execution_id, row.id, _failed(name, row.id, reason))
    backend.file_status(row.id, Status.ERROR, reason)
    return FileResult(file=name, file_execution_id=row.id, status=Status.ERROR, error=reason)


def _tell_of_the_rest(call: Call, run: Run, known: set[str], reason: str) -> None:
    """Tell the caller of files that no row was ever made for, as far as it is known which they are."""
    for place, file in planned(call.state.plan(run.execution_id)).items():
        if file.file_name not in known:
            item = _failed(file.file_name, None, reason)
            call.state.push_api_result(run.workflow_id, run.execution_id, place, item)


def _failed(name: str, row: str | None, reason: str) -> dict[str, Any]:
    return {
        "file": name,
        "file_execution_id": row,
        "status": "Failed",
        "result": None,
        "error": reason,
        "metadata": None,
    }
