"""API deployments: the files come with the message."""

from shared.api_client import OrganizationAPI
from shared.call import Call
from shared.models import ExecuteRequest, FileHash


def source_files(_call: Call, _backend: OrganizationAPI, request: ExecuteRequest) -> list[FileHash]:
    """The files that the backend staged before it sent the message."""
    return list(request.files.values())
