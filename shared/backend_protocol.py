"""The internal API without I/O: how a request is written, and how an answer becomes a model or an error.

Everything here is a pure function over method, path, status, headers and bytes. What there is to ask stands in
`shared/endpoints.py`. Source: contract sections 2 and 3.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ValidationError

from shared.errors import (
    BackendBusyError,
    BackendFailedError,
    BackendRefusedError,
    BackendUnreachableError,
    NotFoundError,
    PayloadError,
    UnauthorizedError,
    WorkerError,
)
from shared.models import mistakes

M = TypeVar("M", bound=BaseModel)

_REFUSALS: Mapping[int, type[BackendRefusedError]] = {
    401: UnauthorizedError,
    403: UnauthorizedError,
    404: NotFoundError,
}
_COME_BACK = frozenset({408, 425, 429})  # the 4xx that a later request may not meet
_GATEWAY = frozenset({502, 503, 504})  # what a proxy says when nobody answers behind it
_UNPROVEN = 503
_SHOWN = 300
_LONGEST_ID = 512
_LONGEST_TARGET = 8_192  # httpx refuses 65536 with an error that is not of our tree, and servers much less with a 400
_SAFE_METHODS = frozenset({"GET", "PUT"})


def without_none(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value: optional ones are left out, since a null is answered 400 (contract section 2)."""
    return {name: value for name, value in body.items() if value is not None}


class RouteGroup(StrEnum):
    """What shares a circuit, a pause and a share of the connections: routes that fail and fill up together."""

    RECORDS = "records"
    """Reads or writes one row, or a few: fast, or broken."""
    BULK = "bulk"
    """Works through many rows, or asks a third system."""
    TOOLS = "tools"
    """Runs the tools on a document."""


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[M]):
    """One row of the contract's table.

    Attributes:
        method: HTTP method.
        route: path with its placeholders; also the bounded name that metrics and errors use.
        answer: what a 2xx holds.
        group: what it shares its fate with.
        repeatable: whether sending the same again is harmless. GET and PUT always are.
        needs_organization: whether it acts for a tenant.
    """

    method: str
    route: str
    answer: type[M]
    group: RouteGroup = RouteGroup.RECORDS
    repeatable: bool = False
    needs_organization: bool = True

    def __call__(self, json: Mapping[str, Any] | None = None, **ids: str) -> "Request[M]":
        """The request for these ids, with that body; fields that are None are left out (a null is answered 400).

        Raises:
            PayloadError: an id that cannot be part of a path: it is empty, far too long, or leads elsewhere.
        """
        for name, value in ids.items():
            if not value.strip() or len(value) > _LONGEST_ID or value in {".", ".."}:
                raise PayloadError(f"{value[:40]!r} cannot be the {name} of a request")
        path = self.route.format_map({name: quote(value, safe="", errors="replace") for name, value in ids.items()})
        body = None if json is None else without_none(json)
        return Request(self, path, body)

    def __str__(self) -> str:
        return f"{self.method} {self.route}"


@dataclass(frozen=True, slots=True)
class Request(Generic[M]):
    """One request, but for who asks.

    Attributes:
        endpoint: what is asked.
        path: below the base address.
        json: the body, if any.
        query: the query; what is None is left out.
        idempotency_key: the same key never has a second effect.
    """

    endpoint: Endpoint[M]
    path: str
    json: Mapping[str, Any] | None = None
    query: Mapping[str, str | None] | None = None
    idempotency_key: str | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again when its answer is lost."""
        endpoint = self.endpoint
        return endpoint.repeatable or endpoint.method in _SAFE_METHODS or self.idempotency_key is not None

    @property
    def target(self) -> str:
        """Path and query, below the base address.

        Raises:
            PayloadError: it is longer than anyone takes.
        """
        query = without_none(self.query or {})
        found = f"{self.path}?{urlencode(query, errors='replace')}" if query else self.path
        if len(found) > _LONGEST_TARGET:
            raise PayloadError(f"the address of a {self.endpoint} would be {len(found)} characters long")
        return found

    def content(self) -> bytes | None:
        """The body: JSON in ASCII, since the text in messages need not be valid Unicode.

        Raises:
            PayloadError: it holds what JSON cannot.
        """
        if self.json is None:
            return None
        try:
            return json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode("ascii")
        except (TypeError, ValueError, RecursionError) as error:
            raise PayloadError(f"the body of {self.endpoint} cannot be JSON: {error}") from error

    def headers(self, key: str, organization_id: str | None) -> dict[str, str]:
        """The headers, whole: the tenant is part of each request, never of the connection.

        No compression is asked for: it costs more than it saves between two machines of one network, and an answer
        that unfolds to a thousand times its size is no danger to who does not unfold it.

        Raises:
            PayloadError: no organization, or none that a header can hold; the backend would not refuse it but answer
                with somebody's nothing.
        """
        found = {
            "Authorization": f"Bearer {key}",
            "User-Agent": "unstract-workers",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        if self.endpoint.needs_organization:
            found["X-Organization-ID"] = _header_value("organization", organization_id)
        if self.json is not None:
            found["Content-Type"] = "application/json"
        if self.idempotency_key is not None:
            found["Idempotency-Key"] = _header_value("idempotency key", self.idempotency_key)
        return found


def _header_value(what: str, value: str | None) -> str:
    # Space at an end would be an error of the transport, which counts as an outage of the backend.
    clean = value and value == value.strip() and value.isascii() and value.isprintable()
    if not (value and clean and len(value) <= _LONGEST_ID):
        raise PayloadError(f"a call to the internal API needs an {what} of printable ASCII characters")
    return value


Hide = Callable[[str], str]


def _as_it_is(said: str) -> str:
    return said


def decode(endpoint: Endpoint[M], status: int, headers: Mapping[str, str], body: bytes, hide: Hide = _as_it_is) -> M:
    """What an answer says. Header names are in lower case.

    An answer may repeat what was sent, as debug pages do: what an error tells of it goes through `hide` first.

    Raises:
        BackendRefusedError: a 4xx; no retry will change it.
        BackendBusyError: come back later, with the seconds where the backend named them.
        BackendUnreachableError: a proxy's word that nobody is there.
        BackendFailedError: any other answer that is not the contract's, 5xx first of all.
    """
    if not 200 <= status < 300:
        raise _error(endpoint, status, headers, hide(reason(body))[:_SHOWN], hide)
    kind = headers.get("content-type", "").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise BackendFailedError(
            f"{endpoint} answered {status} with {hide(kind)[:_SHOWN] or 'a body of no type'} instead of JSON: "
            "does INTERNAL_API_BASE_URL lead to the internal API?"
        )
    try:
        return endpoint.answer.model_validate_json(body)
    except ValidationError as error:
        raise BackendFailedError(
            f"{endpoint} answered {status} with a body that is not the contract's: {hide(_wrong(error))[:_SHOWN]}"
        ) from None


def _wrong(error: ValidationError) -> str:
    found = mistakes(error)
    return f"{'; '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''}"


def _error(endpoint: Endpoint[M], status: int, headers: Mapping[str, str], why: str, hide: Hide) -> WorkerError:
    said = f"{endpoint} answered {status}: {why}"
    wait = retry_after(headers.get("retry-after"))
    if status in _COME_BACK or (status == _UNPROVEN and wait is not None):
        return BackendBusyError(said, wait, status)
    if 400 <= status < 500:
        return _REFUSALS.get(status, BackendRefusedError)(said, status)
    if status in _GATEWAY:
        return BackendUnreachableError(said)
    if 300 <= status < 400:
        where = hide(headers.get("location", "nowhere"))[:_SHOWN]
        return BackendFailedError(
            f"{endpoint} answered {status}, a redirect to {where!r}. It is not followed, since it would "
            "carry the key: INTERNAL_API_BASE_URL must be the address itself"
        )
    return BackendFailedError(said)


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
        shape.errors,
        *(f"{field}: {_flat(said)}" for field, said in extra.items()),
    ):
        if text:
            return _flat(text)
    return "no reason given"


class _ErrorBody(BaseModel, extra="allow"):
    error: Any = None
    detail: Any = None
    message: Any = None
    errors: Any = None


def _flat(said: Any) -> str:
    if isinstance(said, list):
        return ", ".join(map(_flat, said))
    return _flat(said.get("detail") or said.get("error") or str(said)) if isinstance(said, dict) else str(said)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds in a Retry-After header, which may be a number or a date (RFC 9110, 10.2.3); None if neither."""
    if not value:
        return None
    try:
        return max(0.0, float(int(value)))
    except OverflowError:
        return math.inf
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
