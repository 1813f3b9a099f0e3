"""What answers say: the recordings of the real backend, and bytes that no backend should send."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shared import backend_protocol as protocol
from shared import endpoints
from shared.backend_protocol import Endpoint
from shared.errors import (
    BackendBusyError,
    BackendFailedError,
    BackendRefusedError,
    BackendUnavailableError,
    NotFoundError,
    PayloadError,
    UnauthorizedError,
)

RECORDINGS = json.loads((Path(__file__).parents[1] / "samples" / "recordings.json").read_text())
ENDPOINTS = [value for value in vars(endpoints).values() if isinstance(value, Endpoint)]


def endpoint_of(recording: dict[str, Any]) -> Endpoint[Any] | None:
    path = recording["path"].removeprefix("/internal/").partition("?")[0]
    for endpoint in ENDPOINTS:
        parts, route = path.split("/"), endpoint.route.split("/")
        same = len(parts) == len(route) and all(r.startswith("{") or r == p for p, r in zip(parts, route, strict=True))
        if same and endpoint.method == recording["method"]:
            return endpoint
    return None


JSON = {"content-type": "application/json"}
KNOWN = [(recording, endpoint) for recording in RECORDINGS if (endpoint := endpoint_of(recording))]


def body_of(recording: dict[str, Any]) -> bytes:
    text = recording.get("response_text_head")
    return text.encode() if text is not None else json.dumps(recording["response_json"]).encode()


def test_the_recordings_cover_every_endpoint_but_the_one_that_was_never_written() -> None:
    uncovered = {endpoint.route for endpoint in ENDPOINTS} - {endpoint.route for _, endpoint in KNOWN}
    assert uncovered == {endpoints.EXECUTE_FILE.route, endpoints.FILE_RUN.route}
    assert len(KNOWN) > 70


@pytest.mark.parametrize(("recording", "endpoint"), KNOWN, ids=[recording["name"] for recording, _ in KNOWN])
def test_every_recording_decodes(recording: dict[str, Any], endpoint: Endpoint[Any]) -> None:
    status = recording["status"]
    if status < 300:
        assert isinstance(protocol.decode(endpoint, status, JSON, body_of(recording)), BaseModel)
        return
    expected = {401: UnauthorizedError, 404: NotFoundError}.get(
        status, BackendRefusedError if 400 <= status < 500 else BackendFailedError
    )
    with pytest.raises(expected) as caught:
        protocol.decode(endpoint, status, JSON, body_of(recording))
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "e", "detail": "d"}, "d"),
        ({"status": ["This field is required."]}, "status: This field is required."),
        ({"status": "error", "message": "m"}, "m"),
        ({"success": False, "error": "e"}, "e"),
        ({}, "no reason given"),
    ],
)
def test_the_reason_is_found_in_every_shape(body: Any, said: str) -> None:
    assert protocol.reason(json.dumps(body).encode()) == said


@pytest.mark.parametrize("body", [b"", b"<h1>Server Error</h1>", b'{"error": "cut', b"[]", b"\xff\xfe"])
def test_a_body_without_json_has_no_reason(body: bytes) -> None:
    assert protocol.reason(body) == "no reason given in JSON"


@given(
    endpoint=st.sampled_from(ENDPOINTS),
    status=st.integers(100, 599),
    body=st.binary()
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["status", "id", "error", "detail", "execution"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode()),
    wait=st.none() | st.text(),
)
def test_anything_is_a_model_or_a_typed_error(
    endpoint: Endpoint[Any], status: int, body: bytes, wait: str | None
) -> None:
    headers = {} if wait is None else {"retry-after": wait}
    try:
        answer = protocol.decode(endpoint, status, headers, body)
    except (BackendUnavailableError, BackendRefusedError):
        return
    assert isinstance(answer, endpoint.answer)
    assert 200 <= status < 300


@pytest.mark.parametrize("status", [408, 425, 429, 503])
def test_busy_says_when(status: int) -> None:
    with pytest.raises(BackendBusyError) as caught:
        protocol.decode(endpoints.EXECUTE_FILE, status, {"retry-after": "7"}, b"")
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("3", 3.0),
        ("-3", 0.0),
        ("soon", None),
        ("Sat, 21 Nov 2026 10:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    now = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
    assert protocol.retry_after(value, now) == seconds


def test_requests_carry_tenant_and_key_and_omit_nulls() -> None:
    request = endpoints.FILE_STATUS({"status": "ERROR", "error_message": None}, file_execution_id="../a b")
    assert request.path == "v1/file-execution/..%2Fa%20b/status/"
    assert request.json == {"status": "ERROR"}
    assert request.headers("k", "org")["X-Organization-ID"] == "org"
    assert request.headers("k", "org")["Authorization"] == "Bearer k"
    for organization in ("", "örg", "a\r\nb"):
        with pytest.raises(PayloadError, match="needs an organization"):
            request.headers("k", organization)
