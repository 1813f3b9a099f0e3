"""ETL and TASK pipelines: the backend lists the files of the workflow's source; those of other executions are left."""

from collections.abc import Mapping

from shared.api_client import OrganizationAPI
from shared.call import Call
from shared.logging_utils import get_logger
from shared.models import ExecuteRequest, FileHash

log = get_logger(__name__)


def source_files(call: Call, backend: OrganizationAPI, request: ExecuteRequest) -> list[FileHash]:
    """The files that are in the source now and that no other execution of the workflow has.

    Listed again if another execution gave files back meanwhile: it may have done some that were listed before.
    """
    while True:
        before = call.state.reservations.releases(request.workflow_id)
        found = _listed(call, backend, request)
        if call.state.reservations.releases(request.workflow_id) == before:
            return found
        call.deadline.check()


def _listed(call: Call, backend: OrganizationAPI, request: ExecuteRequest) -> list[FileHash]:
    files = backend.source_files(request.workflow_id, request.execution_id, request.options)
    busy = _active_elsewhere(backend, request, files)
    free = {f"{file.provider_file_uuid}:{path}": path for path, file in files.items() if path not in busy}
    seconds = call.settings.execution_deadline
    held = call.state.reservations.reserve(request.workflow_id, request.execution_id, list(free), seconds)
    skipped = busy | {free[name]: f"execution {holder} has it" for name, holder in held.items()}
    for path, reason in skipped.items():
        log.info("file_skipped", file_number=files[path].file_number, reason=reason)
    call.state.skip(request.execution_id, {files[path].file_name: reason for path, reason in skipped.items()})
    return [file for path, file in files.items() if path not in skipped]


def _active_elsewhere(
    backend: OrganizationAPI, request: ExecuteRequest, files: Mapping[str, FileHash]
) -> dict[str, str]:
    known = [file for file in files.values() if file.provider_file_uuid]
    if not known:
        return {}
    active = backend.active_files(request.workflow_id, request.execution_id, known)
    return {path: "another execution is processing it" for path, file in files.items() if file in active}
