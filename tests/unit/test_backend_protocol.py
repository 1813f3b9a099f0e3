"""What requests are made of, and what answers say: the real backend's recordings, and what no backend should send."""

import json
import math
import string
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import h11
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shared import backend_protocol as protocol
from shared import endpoints
from shared.backend_protocol import Endpoint, Request
from shared.errors import (
    BackendBusyError,
    BackendFailedError,
    BackendRefusedError,
    BackendUnavailableError,
    BackendUnreachableError,
    NotFoundError,
    PayloadError,
    UnauthorizedError,
    WorkerError,
)
from tests.contract.recordings import RECORDINGS, body_of, differences

ENDPOINTS = [value for value in vars(endpoints).values() if isinstance(value, Endpoint)]
JSON = {"content-type": "application/json"}
# Fits the pattern of a row, and is another route, which no worker calls.
ANOTHER_ROUTE = "v1/file-execution/metrics/"


def endpoint_of(recording: dict[str, Any]) -> Endpoint[Any] | None:
    path = recording["path"].removeprefix("/internal/").partition("?")[0]
    for endpoint in ENDPOINTS:
        parts, route = path.split("/"), endpoint.route.split("/")
        same = len(parts) == len(route) and all(r.startswith("{") or r == p for p, r in zip(parts, route, strict=True))
        if same and endpoint.method == recording["method"] and path != ANOTHER_ROUTE:
            return endpoint
    return None


KNOWN = [(recording, endpoint) for recording in RECORDINGS if (endpoint := endpoint_of(recording))]
ANSWERS = [(endpoint, body_of(recording)) for recording, endpoint in KNOWN if recording["status"] < 300]

# Recording -> a part of what its answer must say, in the words of our models.
NOTIFIED = {
    "id": "9980ecd1-eb95-4369-95b5-dd4e9416ded1",
    "url": "http://127.0.0.1:58999/hook",
    "authorization_type": "BEARER",
    "authorization_key": "tok-1",
    "authorization_header": None,
    "max_retries": 2,
    "platform": "API",
    "notify_on_failures": False,
    "is_active": True,
}
HASH = "3b978145cb55a53ac8abecfc2c4f7f0af9a791aba5a6114fc710609a3f3cd1b8"
REMEMBERED = {"status": "COMPLETED", "result": '{"x": 2}', "metadata": "{'a': 2}", "provider_file_uuid": "etag-h"}
STORE = {"endpoint_url": "http://127.0.0.1:59000", "key": "minio", "secret": "minio123", "path": "/"}
SOURCE = {"connection_type": "FILESYSTEM", "connector_instance": {"connector_metadata": STORE}}
SAID: dict[str, Any] = {
    "health.ok": {"status": "healthy", "service": "internal_api", "authenticated": True},
    "health.no_org": {"organization_id": None},
    "execution.get": {
        "execution": {"status": "PENDING", "total_files": 3, "attempts": 0, "error_message": ""},
        "workflow_definition": {"workflow_name": "api-wf-4e82bf75", "workflow_type": "API"},
        "source_config": {"is_api": True, "type": "api_deployment"},
        "destination_config": {"connection_type": "API", "use_file_history": True},
        "organization_context": {"organization_id": "org-4e82bf75"},
        "file_executions": [],
    },
    "execution.get.include_cost_after_usage": {"aggregated_usage_cost": 0.0121},
    "execution.batch_status.illegal_readback": {"execution": {"status": "BANANA", "pipeline_id": None}},
    "execution.final.readback": {
        "execution": {"status": "COMPLETED", "execution_time": 8.981},
        "file_executions": [{"status": "", "file_name": ""}, {"status": "COMPLETED", "execution_time": 0.61}],
    },
    "execution.list": [{"total_files": 1}, {"pipeline_id": None}, {"total_files": 3}],
    "execution.list.empty": [],
    "execution.create": {"execution_id": "9304e36a-54d9-4053-a04a-f890c58d208b", "status": "PENDING"},
    "execution.status.EXECUTING": {"status": "updated", "skipped": False},
    "execution.pg.guard_revert": {"status": "skipped", "skipped": True},
    "execution.batch_status": {
        "successful_updates": [{"id": "4257e0d7-a814-4b56-b2ac-db46bc32f99f", "status": "EXECUTING"}],
        "failed_updates": [
            {"error": "Workflow execution not found"},
            {"error": "execution_id and status are required"},
        ],
        "total_processed": 3,
    },
    "file_execution.create": {"status": "", "file_path": "unstract/api/org-4e82bf75/a.pdf", "file_size": 1234},
    "file_execution.get": {"id": "174a9c1f-bf37-4708-8ee8-51315e0bc10f", "file_path": None, "execution_error": None},
    "file_execution.list.by_execution": [{"file_name": "a.pdf"}, {"file_name": "b.pdf"}, {"file_name": ""}],
    "file_execution.status.ERROR": {"status": "updated"},
    "file_execution.batch_status": {
        "successful_updates": [{"id": "85ef50e9-6049-4efb-b7c2-43a0c01be44f", "status": "COMPLETED"}],
        "failed_updates": [{"error": "WorkflowFileExecution not found"}, {}, {}],
    },
    "wm.file_batch.mixed_duplicate": {
        "total_files": 5,
        "created_file_executions": [{"file_name": "mix1", "status": "PENDING"}, {}, {}],
        "skipped_files": [{"file_name": "q.pdf"}, {"file_name": "mix3"}],
    },
    "wm.increment.completed": {"status": None},
    "wm.check_active.hit": {"active_identifiers": ["etag-c:/in/c.pdf"]},
    "wm.file_history.check_batch": {
        "processed_file_hashes": [HASH],
        "file_history_details": {HASH: {**REMEMBERED, "error": "", "execution_count": 2}},
    },
    "file_history.create.again": {"file_history": REMEMBERED},
    "file_history.create.unknown_status": {"file_history": {"status": "COMPLETED", "result": "", "metadata": ""}},
    "file_history.reserve": {
        "reserved": True,
        "held": False,
        "file_history_id": "ec993080-fc5e-4c05-9682-e555a10bb3af",
    },
    "file_history.reserve.done": {"reserved": False, "held": False, "file_history": REMEMBERED},
    "workflow.source_files.etl": {
        "files": {"inbox/a.pdf": {"file_size": 36, "file_hash": None, "connector_metadata": STORE}}
    },
    "workflow.definition.etl": {
        "workflow_type": "ETL",
        "organization_id": "org-4e82bf75",
        "source_config": {**SOURCE, "configuration": {"secret": "minio123", "maxFiles": 100}},
        "destination_config": {"configuration": {"password": "unstract_pass", "table": "out"}},
    },
    "workflow.endpoints.etl": {
        "source_endpoint": {**SOURCE, "configuration": {"folders": ["/inbox"]}},
        "destination_endpoint": {"connection_type": "DATABASE"},
        "has_api_endpoints": False,
    },
    "workflow.endpoints.api": {"has_api_endpoints": True, "source_endpoint": {"connector_instance": None}},
    "tool_instances.by_workflow.api": {
        "tool_instances": [{"id": "f04d303c-d927-4650-9a63-efb9479dbd14", "tool_id": "text_extractor"}]
    },
    "tool.validate.api": {"success": True},
    "pipeline.get.after": {
        "pipeline": {"active": True, "organization": 26, "pipeline_name": "etl-4e82bf75", "last_run_status": "SUCCESS"}
    },
    "pipeline.get.api": {"pipeline": {"active": True, "is_api": True, "resolved_pipeline_type": "API"}},
    "pipeline.put.etl.illegal_status": {"status": "success", "skipped": False},
    "api_deployment.get": {"pipeline": {"is_active": True, "api_name": "api_4e82bf75", "organization": 26}},
    "organization.context": {"key": 26, "organization_name": "Org-4E82Bf75"},
    "configuration.override": {"data": {"value": 4}},
    "usage.tokens": {"data": {"usage": {"total_tokens": 127, "embedding_tokens": 7, "cost_in_dollars": 0.0121}}},
    "usage.tokens.empty": {"data": {"usage": {"total_tokens": None, "cost_in_dollars": None}}},
    "webhook.pipeline_notifications": {
        "notifications": [NOTIFIED, {"platform": "SLACK", "authorization_key": None, "notify_on_failures": True}],
        "execution_counts": {"total_files": None},
    },
    "webhook.api_notifications": {
        "notifications": [{"authorization_type": "CUSTOM_HEADER", "authorization_header": "X-Auth"}],
        "execution_counts": {"total_files": 3, "successful_files": 0, "failed_files": 0},
    },
    "webhook.buffer.enqueue": {"buffer_row_id": "538fbc9c-e305-41ff-a9e0-e4443a504364"},
    "webhook.buffer.enqueue.inprogress_failure_only": {"buffer_row_id": None},
    "webhook.buffer.process": {"dispatched_groups": 9, "dispatched_rows": 396, "dead_letter_rows": 0},
    "webhook.buffer.mark_dispatched": {"updated": 0},
    "webhook.buffer.mark_dead_letter": {"updated": 0},
    "webhook.send": {"task_id": "260d2a8a-d7eb-452b-89e8-0b90e58d9f4d", "status": "queued"},
    "emit_websocket": {"status": "success"},
    "logs.process_history.two": {
        "processed_count": 1,
        "skipped_count": 1,
        "total_logs": 2,
        "organizations_processed": 1,
    },
}


def test_the_recordings_cover_every_endpoint_but_the_one_that_was_never_written() -> None:
    uncovered = set(ENDPOINTS) - {endpoint for _, endpoint in KNOWN}
    assert uncovered == {endpoints.EXECUTE_FILE, endpoints.FILE_RUN}
    answered = {recording["name"]: endpoint for recording, endpoint in KNOWN if recording["status"] < 300}
    assert {answered[name] for name in SAID} == set(ENDPOINTS) - uncovered
    assert len(KNOWN) > 190


def error_of(status: int, *, says_when: bool = False) -> type[WorkerError]:
    """The one error that an answer with this status is."""
    if status in {408, 425, 429} or (status == 503 and says_when):
        return BackendBusyError
    if 400 <= status < 500:
        refusals = {401: UnauthorizedError, 403: UnauthorizedError, 404: NotFoundError}
        return refusals.get(status, BackendRefusedError)
    return BackendUnreachableError if status in {502, 503, 504} else BackendFailedError


@pytest.mark.parametrize(("recording", "endpoint"), KNOWN, ids=[recording["name"] for recording, _ in KNOWN])
def test_every_recording_decodes(recording: dict[str, Any], endpoint: Endpoint[Any]) -> None:
    status, headers = recording["status"], {"content-type": recording["content_type"]}
    if status < 300:
        answer = protocol.decode(endpoint, status, headers, body_of(recording))
        assert type(answer) is endpoint.answer
        assert list(differences(SAID.get(recording["name"], {}), answer)) == []
        return
    with pytest.raises((BackendRefusedError, BackendUnavailableError)) as caught:
        protocol.decode(endpoint, status, headers, body_of(recording))
    assert type(caught.value) is error_of(status)
    assert getattr(caught.value, "status", status) == status


SECRETS = ("minio123", "unstract_pass", "tok-1", "sek", "hook?fail=1", '{"x": 2}')


def test_no_credential_and_no_document_is_shown() -> None:
    holding = 0
    for endpoint, body in ANSWERS:
        answer = endpoint.answer.model_validate_json(body)
        told = str(answer.model_dump())
        shown = f"{answer!r} {answer} {answer.__repr_args__()}"
        holding += any(secret in told for secret in SECRETS)
        assert [secret for secret in SECRETS if secret in shown] == []
    assert holding >= 10


@pytest.mark.parametrize("key", [None, "", "org-1", "2.6", True, 2.0, [26]])
def test_an_organization_without_its_key_is_no_answer(key: Any) -> None:
    body = json.dumps({"organization_id": key, "organization_name": "o"}).encode()
    with pytest.raises(BackendFailedError):
        protocol.decode(endpoints.ORGANIZATION, 200, JSON, body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "e", "detail": "d"}, "d"),
        ({"status": ["This field is required."]}, "status: This field is required."),
        ({"status": "error", "message": "m"}, "m"),
        ({"success": False, "error": "e"}, "e"),
        ({"success": False, "errors": [{"id": "t", "error": "e"}, {"id": "u", "error": "f"}]}, "e, f"),
        ({"type": "client_error", "errors": [{"code": "not_found", "detail": "d", "attr": None}]}, "d"),
        ({}, "no reason given"),
    ],
)
def test_the_reason_is_found_in_every_shape(body: Any, said: str) -> None:
    assert protocol.reason(json.dumps(body).encode()) == said


@pytest.mark.parametrize("body", [b"", b"<h1>Server Error</h1>", b'{"error": "cut', b"[]", b"\xff\xfe"])
def test_a_body_without_json_has_no_reason(body: bytes) -> None:
    assert protocol.reason(body) == "no reason given in JSON"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**4000),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["status", "id", "error", "errors", "detail", "execution"]) | st.text(), inner
        )
    ),
    max_leaves=8,
)
DATES = st.text(string.digits + " ,:+-.SatNovGMTEDT", max_size=40) | st.datetimes().map(
    lambda when: when.strftime("%a, %d %b %Y %H:%M:%S +9999")
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "Application/JSON ; charset=x", "text/html"]) | st.text(),
        "retry-after": st.integers().map(str) | st.just("9" * 5000) | DATES | st.text(),
        "location": st.text(),
    },
)


@given(
    endpoint=st.sampled_from(ENDPOINTS),
    status=st.integers(100, 999),
    headers=HEADERS,
    body=st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | ANY_JSON.map(json.dumps).map(str.encode),
)
def test_anything_is_a_model_or_a_typed_error(
    endpoint: Endpoint[Any], status: int, headers: dict[str, str], body: bytes
) -> None:
    try:
        answer = protocol.decode(endpoint, status, headers, body)
    except (BackendRefusedError, BackendUnavailableError) as error:
        said: WorkerError = error
    else:
        assert type(answer) is endpoint.answer
        assert 200 <= status < 300
        return
    says_when = protocol.retry_after(headers.get("retry-after")) is not None
    assert type(said) is error_of(status, says_when=says_when)
    assert getattr(said, "status", status) == status
    assert len(str(said)) < 2_000
    assert (getattr(said, "retry_after", None) or 0) >= 0


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, as the keys that lead there."""
    yield here
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*here, key))


WRONG: list[Any] = [None, [], {}, "", "text", 0, -1, 1.5, math.nan, math.inf, True, 10**400, [[]], {"status": 1}]


@given(data=st.data())
def test_a_near_miss_is_the_model_or_a_failure(data: st.DataObject) -> None:
    endpoint, body = data.draw(st.sampled_from(ANSWERS))
    whole = [json.loads(body)]
    place: tuple[Any, ...] = (0, *data.draw(st.sampled_from(list(places(whole[0])))))
    holder: Any = whole
    for key in place[:-1]:
        holder = holder[key]
    last, inside = place[-1], holder is not whole
    if inside and data.draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = data.draw(st.sampled_from(WRONG))
    told = json.dumps(whole[0]).encode()
    try:
        answer = protocol.decode(endpoint, 200, JSON, told)
    except BackendFailedError as failed:
        assert "not the contract's" in str(failed)  # noqa: PT017 # either is right
    else:
        assert type(answer) is endpoint.answer


@given(data=st.data())
def test_a_truncated_answer_is_a_failure(data: st.DataObject) -> None:
    endpoint, body = data.draw(st.sampled_from(ANSWERS))
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(BackendFailedError):
        protocol.decode(endpoint, 200, JSON, body[:cut])


@given(answer=st.sampled_from(ANSWERS), kind=st.text() | st.sampled_from(["text/json", "application/json+x", ""]))
def test_an_answer_of_another_type_is_a_failure(answer: tuple[Endpoint[BaseModel], bytes], kind: str) -> None:
    with pytest.raises(BackendFailedError, match="instead of JSON"):
        protocol.decode(answer[0], 200, {"content-type": f"x{kind}"}, answer[1])


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


@pytest.mark.parametrize("wait", ["NaN", "Infinity", '"nan"', '"later"', "[]"])
def test_no_number_is_no_time_to_wait(wait: str) -> None:
    with pytest.raises(BackendFailedError):
        protocol.decode(endpoints.FILE_RUN, 202, JSON, f'{{"status": "EXECUTING", "poll_after": {wait}}}'.encode())


def test_requests_carry_tenant_and_key_and_omit_nulls() -> None:
    request = endpoints.FILE_STATUS({"status": "ERROR", "error_message": None}, file_execution_id="../a b")
    assert request.path == "v1/file-execution/..%2Fa%20b/status/"
    assert request.json == {"status": "ERROR"}
    assert request.headers("k", "org")["X-Organization-ID"] == "org"
    assert request.headers("k", "org")["Authorization"] == "Bearer k"
    for organization in ("", "örg", "a\r\nb", " org", "org ", "o" * 513):
        with pytest.raises(PayloadError, match="needs an organization"):
            request.headers("k", organization)


def test_what_acts_for_no_organization_names_none() -> None:
    free = {endpoint for endpoint in ENDPOINTS if not endpoint.needs_organization}
    assert free == {endpoints.HEALTH, endpoints.BUFFER_RUN, endpoints.LOG_HISTORY, endpoints.EMISSION}
    for endpoint in free:
        assert "X-Organization-ID" not in endpoint().headers("k", "org")


def test_what_creates_or_sends_is_sent_once() -> None:
    once = {endpoint for endpoint in ENDPOINTS if not Request(endpoint, "").repeatable}
    assert once == {
        endpoints.EXECUTION_CREATION,
        endpoints.FILE_BATCH,
        endpoints.FILE_COUNT,
        endpoints.FILE_RESERVATION,
        endpoints.EXECUTE_FILE,
        endpoints.BUFFER_EVENT,
        endpoints.BUFFER_RUN,
        endpoints.WEBHOOK,
        endpoints.EMISSION,
        endpoints.LOG_HISTORY,
    }
    assert replace(endpoints.EXECUTE_FILE(), idempotency_key="fe").repeatable


ODD = (
    st.sampled_from(
        ["", " ", ".", "..", "a/..", "%2e%2e", "%2E./", "\\..\\", "//", "?x", "#x", "{id}", "\ud800", "\x00"]
    )
    | st.text(st.characters(), max_size=40)
    | st.text(string.ascii_letters, min_size=1, max_size=3).map(lambda text: text * 300)
    | st.uuids().map(str)
)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
BODY = st.none() | st.dictionaries(
    ODD,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | ODD | st.binary() | st.datetimes(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD | st.tuples(), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)
BUILDER = httpx.Client(base_url="http://h/internal/", verify=False)  # noqa: S501 # it sends nothing
QUERY = st.none() | st.dictionaries(ODD, st.none() | ODD | st.just("x" * 70_000), max_size=3)


@given(data=st.data())
def test_a_request_stays_on_its_route_and_can_be_sent(data: st.DataObject) -> None:
    endpoint = data.draw(st.sampled_from(ENDPOINTS))
    names = [name for _, name, _, _ in string.Formatter().parse(endpoint.route) if name]
    ids = {name: data.draw(ODD) for name in names}
    organization = data.draw(st.just("org") | ODD)
    with suppress(PayloadError):
        request = endpoint(data.draw(BODY), **ids)
        request = replace(request, query=data.draw(QUERY), idempotency_key=data.draw(st.none() | ODD))
        headers, content = request.headers("key", organization), request.content()
        built = BUILDER.build_request(endpoint.method, request.target, headers=headers, content=content)
        # The transport has its own opinion of what may be sent.
        h11.Request(method=built.method, target=built.url.raw_path, headers=built.headers.raw)
        path, _, _ = built.url.raw_path.decode("ascii").partition("?")
        route = f"/internal/{endpoint.route}".split("/")
        for part, given_ in zip(path.split("/"), route, strict=True):
            wanted = ids[given_[1:-1]] if given_.startswith("{") else given_
            assert unquote(part) == wanted.encode(errors="replace").decode()
            assert part not in {".", ".."}
        if content is not None:
            assert None not in json.loads(content).values()


@pytest.mark.parametrize("value", ["", " \t", ".", "..", "x" * 513])
def test_an_id_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(PayloadError, match="execution_id"):
        endpoints.EXECUTION(execution_id=value)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, DEEP, b"bytes", datetime(2026, 11, 21, tzinfo=UTC), {(): 1}, {math.nan: 1}, 10**5000],
    ids=["nan", "inf", "deep", "bytes", "time", "key", "nan-key", "huge"],
)
def test_a_body_that_cannot_be_json_is_refused(value: Any) -> None:
    with pytest.raises(PayloadError, match="cannot be JSON"):
        endpoints.EMISSION({"data": value}).content()


def test_an_address_that_nobody_takes_is_refused() -> None:
    request = replace(endpoints.EXECUTIONS(), query={"workflow_id": "x" * 70_000})
    with pytest.raises(PayloadError, match="characters long"):
        _ = request.target


def test_a_text_that_is_not_unicode_arrives_as_it_was() -> None:
    content = endpoints.EMISSION({"data": {"name": "a\ud800b"}}).content()
    assert content is not None
    assert json.loads(content)["data"]["name"] == "a\ud800b"
    assert endpoints.EXECUTION(execution_id="a\ud800b").path == f"v1/workflow-execution/{quote('a?b', safe='')}/"
