"""The client over a transport that answers from memory: what it sends, what it repeats, what it never shows."""

import pickle
from collections.abc import Callable

import httpx
import pytest

from monitoring.registry import KEPT
from shared.api_client import InternalAPIClient, OrganizationAPI
from shared.errors import (
    BackendBusyError,
    BackendRefusedError,
    BackendUnavailableError,
    CircuitOpenError,
    NotFoundError,
)
from shared.models import Counts, FileData, FileHash, Status
from shared.passage import Passage, carrying
from tests.fakes import settings

Answer = Callable[[httpx.Request], httpx.Response]
DATA = FileData(workflow_id="wf", execution_id="ex", organization_id="org")


class Server:
    """Answers in turn, the last for ever, and remembers the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.requests = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def api(server: Server, **variables: str) -> OrganizationAPI:
    found = settings(INTERNAL_API_RETRY_BACKOFF_FACTOR="0", **variables)
    return InternalAPIClient(found, transport=httpx.MockTransport(server)).for_organization("org")


def ok(**body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


def test_a_request_says_whose_it_is_beside_the_contracts_own_headers() -> None:
    row = {"execution": {"id": "ex", "workflow_id": "wf", "status": "PENDING"}, "source_config": {"is_api": True}}
    server = Server(ok(**row), ok(**row))
    api(server).execution("ex")
    with carrying(Passage("the-users", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "vendor=1")):
        api(server).execution("ex")
    before, behind = (dict(sent.headers) for sent in server.requests)
    said = {"x-request-id": "the-users", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}
    assert behind == before | said
    assert before["authorization"] == "Bearer unit-test-key"


def test_the_end_of_an_execution_is_one_request_with_its_message_cut() -> None:
    server = Server(ok(status="updated"))
    api(server).end_execution("ex", Status.ERROR, Counts(3, 1, 2), "x" * 300)
    (sent,) = server.requests
    assert str(sent.url) == "http://backend.invalid/internal/v1/workflow-execution/ex/update_status/"
    assert sent.headers["x-organization-id"] == "org"
    assert sent.headers["authorization"] == "Bearer unit-test-key"
    expected = {
        "status": "ERROR",
        "error_message": "x" * 256,
        "total_files": 3,
        "successful_files": 1,
        "failed_files": 2,
    }
    assert httpx.Response(200, content=sent.content).json() == expected


def test_a_file_is_executed_under_its_key() -> None:
    server = Server(httpx.Response(202, json={"status": "EXECUTING", "file_execution_id": "fe", "poll_after": 2}))
    run = api(server).execute_file("fe", DATA, FileHash(file_name="a", file_number=4))
    assert run.running
    assert run.poll_after == 2
    assert server.requests[0].headers["idempotency-key"] == "fe"
    body = httpx.Response(200, content=server.requests[0].content).json()
    assert body["file_data"]["file_execution_id"] == "fe"
    assert body["file_data"]["file_number"] == 4


@pytest.mark.parametrize("failure", [httpx.Response(500), httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_an_outage_is_tried_as_often_as_configured_and_no_more(failure: httpx.Response | Exception) -> None:
    server = Server(failure)
    with pytest.raises(BackendUnavailableError):
        api(server, INTERNAL_API_RETRY_ATTEMPTS="4").execution("ex")
    assert len(server.requests) == 4


def test_a_passing_failure_is_not_seen_above() -> None:
    server = Server(httpx.Response(502), ok(id="fe", status=""))
    assert api(server).file_execution("ex", "wf", FileHash(file_name="a")).id == "fe"


def test_a_refusal_is_not_repeated() -> None:
    server = Server(httpx.Response(404, json={"error": "gone"}))
    with pytest.raises(NotFoundError, match="gone"):
        api(server).execution("ex")
    assert len(server.requests) == 1


def test_a_wait_longer_than_the_bound_goes_up_instead() -> None:
    server = Server(httpx.Response(503, headers={"Retry-After": "86400"}))
    with pytest.raises(BackendUnavailableError):
        api(server).execution("ex")
    assert len(server.requests) == 1


def test_an_attempt_that_has_no_time_left_is_an_outage_and_no_refusal() -> None:
    server = Server(httpx.ReadTimeout("slow"))
    with pytest.raises(BackendUnavailableError):
        api(server, INTERNAL_API_TIMEOUT="0.1", INTERNAL_API_RETRY_ATTEMPTS="10").execution("ex")


def test_typed_errors_cross_from_one_process_to_another() -> None:
    for error in (NotFoundError("gone", 404), BackendBusyError("busy", 3.0, 429), CircuitOpenError("open", 9.0)):
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 # our own bytes
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_a_redirect_is_not_followed_with_the_key() -> None:
    server = Server(httpx.Response(301, headers={"Location": "http://elsewhere.invalid/"}))
    with pytest.raises(BackendUnavailableError, match="301"):
        api(server, INTERNAL_API_RETRY_ATTEMPTS="1").execution("ex")
    assert {request.url.host for request in server.requests} == {"backend.invalid"}


def test_the_key_is_in_no_error() -> None:
    for answer in (httpx.Response(401, json={"error": "bad key"}), httpx.ConnectError("refused")):
        with pytest.raises((BackendRefusedError, BackendUnavailableError)) as caught:
            api(Server(answer)).execution("ex")
        assert "unit-test-key" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_check_of_the_backend_leaves_the_circuit_as_it_is_shown() -> None:
    """Readiness is asked every few seconds with a client of its own, whose circuits are closed."""
    KEPT.begin("")
    dead = api(Server(httpx.ConnectError("refused")))
    for _ in range(10):
        with pytest.raises(BackendUnavailableError):
            dead.execution("ex")
    assert KEPT.value("workers_circuit_breaker_state", group="records") == 2
    another = Server(ok(status="healthy", version="1", authenticated=True))
    InternalAPIClient(settings(), transport=httpx.MockTransport(another)).health()
    assert another.requests
    assert KEPT.value("workers_circuit_breaker_state", group="records") == 2
