"""The internal API without I/O: endpoints, headers, and how an answer becomes a model or an error.

Everything here is a pure function over bytes and mappings. Source: contract sections 2 and 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from shared import models
from shared.errors import (
    BackendBusyError,
    BackendRefusedError,
    BackendUnavailableError,
    NotFoundError,
    PayloadError,
    UnauthorizedError,
    WorkerError,
)

M = TypeVar("M", bound=BaseModel)

_BUSY = frozenset({408, 425, 429, 503})
_REFUSALS: Mapping[int, type[BackendRefusedError]] = {
    401: UnauthorizedError,
    403: UnauthorizedError,
    404: NotFoundError,
}
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[M]):
    """One row of the contract's table.

    Attributes:
        method: HTTP method.
        route: path with its placeholders; also the bounded name that metrics use.
        answer: what a 2xx holds.

    Sending the same request again is harmless on every row: they read, set a value, or carry a key.
    """

    method: str
    route: str
    answer: type[M]

    def __call__(self, json: Mapping[str, Any] | None = None, **ids: str) -> "Request[M]":
        """The request for these ids, with that body; fields that are None are left out (a null is answered 400)."""
        path = self.route.format_map({name: quote(value, safe="") for name, value in ids.items()})
        body = None if json is None else {name: value for name, value in json.items() if value is not None}
        return Request(self, path, body)


@dataclass(frozen=True, slots=True)
class Request(Generic[M]):
    """One request, but for who asks.

    Attributes:
        endpoint: what is asked.
        path: below the base address.
        json: the body, if any.
        params: the query.
        idempotency_key: the same key never has a second effect.
    """

    endpoint: Endpoint[M]
    path: str
    json: Mapping[str, Any] | None = None
    params: Mapping[str, str] | None = None
    idempotency_key: str | None = None

    def headers(self, key: str, organization_id: str) -> dict[str, str]:
        """The headers, whole: the tenant is part of each request, never of the connection.

        Raises:
            PayloadError: no organization, or none that a header can hold; the backend would not refuse it but answer
                with somebody's nothing.
        """
        if not (organization_id and organization_id.isascii() and organization_id.isprintable()):
            raise PayloadError("a call to the internal API needs an organization of printable ASCII characters")
        found = {
            "Authorization": f"Bearer {key}",
            "X-Organization-ID": organization_id,
            "Accept": "application/json",
        }
        if self.idempotency_key:
            found["Idempotency-Key"] = self.idempotency_key
        return found


EXECUTION = Endpoint("GET", "v1/workflow-execution/{execution_id}/", models.Execution)
# Repeating a status is harmless: the row ends as it was.
EXECUTION_STATUS = Endpoint("POST", "v1/workflow-execution/{execution_id}/update_status/", models.Acknowledgement)
TOOL_INSTANCES = Endpoint("GET", "v1/workflow-manager/workflow/{workflow_id}/tool-instances/", models.ToolInstances)
TOOL_VALIDATION = Endpoint("POST", "v1/tool-execution/validate/", models.Validation)
CONFIGURATION = Endpoint("GET", "v1/configuration/{key}/", models.Configuration)
SOURCE_FILES = Endpoint("POST", "v1/workflow-manager/source-files/{workflow_id}/", models.SourceFiles)
# The same key gives the same row.
FILE_EXECUTION = Endpoint("POST", "v1/file-execution/", models.FileExecution)
FILE_STATUS = Endpoint("POST", "v1/file-execution/{file_execution_id}/status/", models.Acknowledgement)
# Carries an Idempotency-Key.
EXECUTE_FILE = Endpoint("POST", "v1/workflow-manager/execute-file/", models.FileRun)
FILE_RUN = Endpoint("GET", "v1/workflow-manager/execute-file/{file_execution_id}/", models.FileRun)
PIPELINE_STATUS = Endpoint("PUT", "v1/pipeline/{pipeline_id}/", models.Acknowledgement)


def decode(endpoint: Endpoint[M], status: int, answer_headers: Mapping[str, str], body: bytes) -> M:
    """What an answer says.

    Raises:
        BackendRefusedError: a 4xx; no retry will change it.
        BackendBusyError: come back later, with the seconds where the backend named them.
        BackendUnavailableError: any other answer that is not the contract's, 5xx first of all.
    """
    if 200 <= status < 300:
        try:
            return endpoint.answer.model_validate_json(body)
        except ValidationError as error:
            count = error.error_count()
            raise BackendUnavailableError(
                f"{endpoint.method} {endpoint.route} answered {status} with a body that is not the contract's "
                f"({count} mistakes)"
            ) from None
    raise _error(endpoint, status, answer_headers, body)


def _error(endpoint: Endpoint[M], status: int, answer_headers: Mapping[str, str], body: bytes) -> WorkerError:
    said = f"{endpoint.method} {endpoint.route} answered {status}: {reason(body)}"
    if status in _BUSY:
        return BackendBusyError(said, retry_after(answer_headers.get("retry-after")))
    if 400 <= status < 500:
        return _REFUSALS.get(status, BackendRefusedError)(said, status)
    return BackendUnavailableError(said)


def reason(body: bytes) -> str:
    """The reason in an error body, whichever of the five shapes it has (contract section 2)."""
    try:
        shape = _ErrorBody.model_validate_json(body)
    except ValidationError:
        return "no reason given in JSON"
    extra = shape.model_extra or {}
    for text in (
        shape.detail,
        shape.error,
        shape.message,
        *(f"{field}: {_flat(said)}" for field, said in extra.items()),
    ):
        if text:
            return _flat(text)[:_SHOWN]
    return "no reason given"


class _ErrorBody(BaseModel, extra="allow"):
    error: Any = None
    detail: Any = None
    message: Any = None


def _flat(said: Any) -> str:
    return ", ".join(map(str, said)) if isinstance(said, list) else str(said)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds in a Retry-After header, which may be a number or a date (RFC 9110, 10.2.3); None if neither."""
    if not value:
        return None
    try:
        return max(0.0, float(int(value)))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
