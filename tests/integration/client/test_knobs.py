"""Each variable of the client changes what a real server sees of it.

Those of TLS: `test_tls.py`; INTERNAL_API_RETRY_ATTEMPTS: `test_circuits.py`; INTERNAL_API_CONNECT_TIMEOUT:
`test_connections.py`; INTERNAL_API_SLOW_REQUESTS: `test_backpressure.py`.
"""

import time

import pytest

from shared import endpoints
from shared.api_client import InternalAPIClient
from shared.errors import (
    AnswerTooLargeError,
    BackendFailedError,
    BackendUnavailableError,
    BackendUnreachableError,
    CircuitOpenError,
)
from tests.fakes import settings
from tests.integration.client.clients import LATE, QUICK, MakeClient, MakeServer
from tests.integration.client.faults import silent
from tests.integration.client.hostile import Peer, Received, answer, execution, reset, well


def sends_until_open(client: InternalAPIClient, most: int = 100) -> int:
    """After how many calls the circuit is open."""
    for number in range(most):
        try:
            client.for_organization("org").execution(str(number))
        except CircuitOpenError:
            return number
        except BackendUnavailableError:
            continue
    return most


def every_other(request: Received, peer: Peer) -> None:
    (well if int(request.name) % 2 else reset)(request, peer)


@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_internal_api_timeout(seconds: float, serve: MakeServer, connect: MakeClient) -> None:
    client, begun = connect(serve(silent).url, INTERNAL_API_TIMEOUT=str(seconds)), time.monotonic()
    with pytest.raises(BackendUnreachableError):
        client.for_organization("org").execution("ex")
    assert 0 <= time.monotonic() - begun - seconds < LATE / 2


@pytest.mark.parametrize(("read", "attempts"), [(0.1, 3), (0.3, 1)])
def test_internal_api_read_timeout(read: float, attempts: int, serve: MakeServer, connect: MakeClient) -> None:
    server = serve(silent)
    variables = {"INTERNAL_API_READ_TIMEOUT": str(read), "INTERNAL_API_RETRY_ATTEMPTS": str(attempts)}
    client, begun = connect(server.url, INTERNAL_API_TIMEOUT="5", **variables), time.monotonic()
    with pytest.raises(BackendUnreachableError):
        client.for_organization("org").execution("ex")
    assert 0 <= time.monotonic() - begun - 0.3 < LATE
    assert len(server.requests) == attempts


def test_the_read_timeout_is_for_answers_about_one_row(serve: MakeServer, connect: MakeClient) -> None:
    def slow(_request: Received, peer: Peer) -> None:
        time.sleep(0.2)
        peer.send(answer({"status": "PENDING"}))

    client = connect(serve(slow).url, INTERNAL_API_TIMEOUT="5", INTERNAL_API_READ_TIMEOUT="0.1")
    assert client.call(endpoints.EXECUTE_FILE({}), "org").running
    with pytest.raises(BackendUnreachableError):
        client.call(endpoints.FILE_RUN(file_execution_id="fe"), "org")


@pytest.mark.parametrize("first", [0.0, 0.2, 7.0])
def test_internal_api_retry_backoff_factor(first: float, serve: MakeServer) -> None:
    server, waits = serve(reset), list[float]()
    variables = QUICK | {"INTERNAL_API_RETRY_ATTEMPTS": "3", "INTERNAL_API_RETRY_BACKOFF_FACTOR": str(first)}
    found = settings(**(variables | {"INTERNAL_API_BASE_URL": server.url, "INTERNAL_API_TIMEOUT": "50"}))
    with InternalAPIClient(found, sleep=waits.append) as client:
        for _ in range(8):
            with pytest.raises(BackendUnavailableError):
                client.for_organization("org").execution("ex")
    assert [wait for wait in waits[0:6:2] if wait > first] == []
    assert [wait for wait in waits[1:6:2] if wait > 2 * first] == []
    assert (max(waits) > first / 4) is (first > 0)


@pytest.mark.parametrize("largest", [2_000, 4_000])
def test_internal_api_max_response_bytes(largest: int, serve: MakeServer, connect: MakeClient) -> None:
    server = serve(lambda _request, peer: peer.send(answer(execution() | {"padding": "x" * 3_000})))
    api = connect(server.url, INTERNAL_API_MAX_RESPONSE_BYTES=str(largest)).for_organization("org")
    if largest > 3_000:
        assert api.execution("ex").execution.id == "ex"
        return
    with pytest.raises(AnswerTooLargeError, match="2000"):
        api.execution("ex")


@pytest.mark.parametrize("prefix", ["", "/deep/er"])
def test_internal_api_base_url(prefix: str, serve: MakeServer, connect: MakeClient) -> None:
    server = serve()
    url = server.url.replace("/internal", f"{prefix}/internal")
    connect(url).for_organization("org").execution("ex")
    (request,) = server.requests
    assert request.target == f"{prefix}/internal/v1/workflow-execution/ex/?file_execution=false"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("key", ["one-key", "ano+ther/k=y"])
def test_internal_service_api_key(key: str, serve: MakeServer, connect: MakeClient) -> None:
    def repeats(request: Received, peer: Peer) -> None:
        peer.send(answer({"error": f"not {request.headers['authorization']}"}, "500 Oops"))

    server = serve(repeats)
    with pytest.raises(BackendFailedError, match=r"not Bearer \*\*\*"):
        connect(server.url, INTERNAL_SERVICE_API_KEY=key).for_organization("org").execution("ex")
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"


@pytest.mark.parametrize("failures", [3, 5])
def test_circuit_breaker_failure_threshold(failures: int, serve: MakeServer, connect: MakeClient) -> None:
    variables = {"CIRCUIT_BREAKER_FAILURE_THRESHOLD": str(failures), "CIRCUIT_BREAKER_MINIMUM_VOLUME": "1"}
    assert sends_until_open(connect(serve(reset).url, **variables)) == failures


@pytest.mark.parametrize("volume", [4, 8])
def test_circuit_breaker_minimum_volume(volume: int, serve: MakeServer, connect: MakeClient) -> None:
    variables = {"CIRCUIT_BREAKER_MINIMUM_VOLUME": str(volume), "CIRCUIT_BREAKER_FAILURE_THRESHOLD": "1"}
    assert sends_until_open(connect(serve(reset).url, **variables)) == volume


@pytest.mark.parametrize(("rate", "opens"), [("0.4", True), ("0.9", False)])
def test_circuit_breaker_failure_rate(
    rate: str,
    opens: bool,
    serve: MakeServer,
    connect: MakeClient,
) -> None:
    client = connect(serve(every_other).url, CIRCUIT_BREAKER_FAILURE_RATE=rate)
    assert (sends_until_open(client) < 40) is opens


def test_circuit_breaker_window(serve: MakeServer, connect: MakeClient) -> None:
    variables = {"CIRCUIT_BREAKER_MINIMUM_VOLUME": "4", "CIRCUIT_BREAKER_FAILURE_THRESHOLD": "4"}
    url = serve(reset).url
    clients = [connect(url, CIRCUIT_BREAKER_WINDOW=window, **variables) for window in ("1", "30")]
    assert [sends_until_open(client, most=3) for client in clients] == [3, 3]
    time.sleep(1.1)
    assert [sends_until_open(client, most=1) for client in clients] == [1, 1]
    assert [client.circuits["records"] for client in clients] == ["closed", "open"]


@pytest.mark.parametrize(("recovery", "asked"), [("0.2", True), ("60", False)])
def test_circuit_breaker_recovery_timeout(
    recovery: str,
    asked: bool,
    serve: MakeServer,
    connect: MakeClient,
) -> None:
    server = serve(reset)
    client = connect(server.url, CIRCUIT_BREAKER_RECOVERY_TIMEOUT=recovery)
    before = sends_until_open(client)
    time.sleep(0.25)
    sends_until_open(client, most=1)
    assert len(server.requests) == before + asked
