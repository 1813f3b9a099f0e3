"""Connections: where none comes about, how they are kept and given up, and what never travels on them."""

import socket
import ssl
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from typing import Any

import httpcore
import pytest

from shared.backend_models import Acknowledgement
from shared.backend_protocol import Endpoint
from shared.deadline import Deadline
from shared.errors import (
    BackendFailedError,
    BackendUnavailableError,
    BackendUnreachableError,
    DeadlineExceededError,
)
from shared.network import BoundedNetwork
from tests.integration.client.clients import HASTY, LATE, STURDY, TIMEOUT, MakeClient, MakeServer
from tests.integration.client.faults import sends, silent
from tests.integration.client.hostile import Peer, Received, answer, execution, head, reset_at_once, well

ONCE = Endpoint("POST", "v1/not-repeatable/", Acknowledgement)


@pytest.mark.parametrize("host", ["backend.invalid", "a" * 70 + ".invalid"])
def test_a_name_that_nobody_has_is_an_unreachable_backend(host: str, connect: MakeClient) -> None:
    with pytest.raises(BackendUnreachableError, match="ConnectError"):
        connect(f"http://{host}/internal").for_organization("org").execution("ex")


def test_a_closed_port_is_an_unreachable_backend(connect: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(BackendUnreachableError, match="refused"):
        connect(f"http://127.0.0.1:{port}/internal").for_organization("org").execution("ex")
    assert time.monotonic() - begun < LATE


def test_a_reset_at_once_is_an_unreachable_backend(serve: MakeServer, connect: MakeClient) -> None:
    with pytest.raises(BackendUnreachableError):
        connect(serve(greet=reset_at_once).url).for_organization("org").execution("ex")


@pytest.mark.parametrize("within", [None, 0.2])
def test_who_never_accepts_is_not_waited_for(within: float | None, connect: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        client, begun = connect(f"http://127.0.0.1:{listener.getsockname()[1]}/internal", **HASTY), time.monotonic()
        api = client.for_organization("org", Deadline.after(within, "a file") if within else None)
        with pytest.raises(DeadlineExceededError if within else BackendUnreachableError):
            api.execution("ex")
        assert 0 <= time.monotonic() - begun - (within or TIMEOUT) <= LATE


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port whose listener has a full backlog: the system drops what comes, and who connects hears nothing."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listener.getsockname()[1]
        try:
            for _ in range(20):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.1))
        except TimeoutError:
            yield port
        else:
            pytest.skip("this system answers for a listener whose backlog is full")


@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_a_connection_is_waited_for_as_long_as_configured(seconds: float, deaf_port: int, connect: MakeClient) -> None:
    client = connect(f"http://127.0.0.1:{deaf_port}/internal", INTERNAL_API_CONNECT_TIMEOUT=str(seconds))
    begun = time.monotonic()
    with pytest.raises(BackendUnreachableError, match="ConnectTimeout"):
        client.for_organization("org").execution("ex")
    assert 0 <= time.monotonic() - begun - seconds < LATE / 2


def test_a_name_of_many_addresses_is_tried_within_the_time_of_one_request(
    deaf_port: int, connect: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = socket.getaddrinfo

    def many(host: Any, *rest: Any, **options: Any) -> Any:
        return asked("127.0.0.1", *rest, **options) * (8 if host == "backend.invalid" else 1)

    # No server of ours can give a name several addresses.
    monkeypatch.setattr(socket, "getaddrinfo", many)
    client, begun = connect(f"http://backend.invalid:{deaf_port}/internal", **HASTY), time.monotonic()
    with pytest.raises(BackendUnreachableError):
        client.for_organization("org").execution("ex")
    assert 0 <= time.monotonic() - begun - TIMEOUT < LATE


def test_a_body_that_is_taken_slowly_is_not_written_for_ever(serve: MakeServer, connect: MakeClient) -> None:
    def sip(peer: Peer) -> None:
        while not peer.gone.wait(0.02) and peer.socket.recv(131_072):
            pass

    client, begun = connect(serve(greet=sip).url, INTERNAL_API_TIMEOUT="1"), time.monotonic()
    with pytest.raises(BackendUnreachableError, match="WriteTimeout"):
        client.call(ONCE({"text": "x" * 20_000_000}), "org")
    assert 0 <= time.monotonic() - begun - 1 < LATE


@pytest.mark.parametrize("threads", [1, 8])
def test_idle_connections_that_were_closed_cost_nothing(threads: int, serve: MakeServer, connect: MakeClient) -> None:
    together = Barrier(threads)

    def closes_when_idle(request: Received, peer: Peer) -> None:
        together.wait(5)
        well(request, peer)
        peer.close()

    server = serve(closes_when_idle)
    api = connect(server.url, threads).for_organization("org")
    with ThreadPoolExecutor(threads) as pool:
        for turn in range(2):
            found = list(pool.map(api.execution, [f"{turn}-{number}" for number in range(threads)]))
            assert len(found) == threads
            time.sleep(0.05)  # the end of a connection is on its way
    assert len(server.requests) == len(set(server.names())) == 2 * threads


def test_a_connection_is_used_again(serve: MakeServer, connect: MakeClient) -> None:
    server = serve()
    api = connect(server.url).for_organization("org")
    for number in range(5):
        api.execution(str(number))
    assert (len(server.connects), len(server.requests)) == (1, 5)


def test_a_request_that_met_the_end_of_its_connection_is_repeated_only_if_it_may_be(
    serve: MakeServer, connect: MakeClient
) -> None:
    def dies_on_the_second(request: Received, peer: Peer) -> None:
        if any(one is not request and one.connection == peer.number for one in server.requests):
            peer.reset()
        else:
            peer.send(answer({"status": "updated"}) if request.method == "POST" else answer(execution()))

    server = serve(dies_on_the_second)
    client = connect(server.url, INTERNAL_API_RETRY_ATTEMPTS="3")
    for _ in range(2):
        client.for_organization("org").execution("ex")
    assert [request.connection for request in server.requests] == [1, 1, 2]
    with pytest.raises(BackendUnreachableError):
        client.call(ONCE({}), "org")
    assert [request.connection for request in server.requests] == [1, 1, 2, 2]


_BODY = answer(execution()).partition(b"\r\n\r\n")[2]
_HINTS = head("100 Continue") + head("103 Early Hints", Link="</style.css>; rel=preload") * 3
_CLOSE = answer(execution(), Connection="close")
_CHUNKS = head(Content_Type="application/json", Transfer_Encoding="chunked", Trailer="X")


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + _BODY, True),
        (_CLOSE.replace(b"1.1", b"1.0"), True),
        (_CLOSE, True),
        (_CLOSE, False),
        (_HINTS + answer(execution()), False),
        (_CHUNKS + b"".join(b"1;pad=1\r\n%c\r\n" % byte for byte in _BODY) + b"0\r\nX: y\r\n\r\n", False),
        (answer(execution(), Content_Encoding="identity", Set_Cookie="a=b"), False),
        (answer(execution()).replace(b"\r\n", b"\n"), False),
    ],
    ids=["http-1.0", "http-1.0-length", "close", "close-late", "hints", "chunks", "identity", "bare-newlines"],
)
def test_unusual_answers_are_answers(said: bytes, ends: bool, serve: MakeServer, connect: MakeClient) -> None:
    server = serve(sends(said) if ends else sends(said, then=lambda _peer: None))
    api = connect(server.url).for_organization("org")
    assert [api.execution("ex").execution.id for _ in range(2)] == ["ex", "ex"]
    assert len(server.requests) == 2


def test_a_redirect_is_never_followed(serve: MakeServer, connect: MakeClient) -> None:
    other = serve()
    for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"):
        server = serve(sends(head(status, Location=f"{other.url}/v1/health/", Content_Length="0")))
        with pytest.raises(BackendFailedError, match="would carry the key"):
            connect(server.url).for_organization("org").execution("ex")
        assert len(server.requests) == 1
    assert other.connects == []


def test_cookies_are_never_sent_back(serve: MakeServer, connect: MakeClient) -> None:
    def marks(request: Received, peer: Peer) -> None:
        peer.send(answer(execution(), Set_Cookie=f"session={request.headers['x-organization-id']}; Path=/"))

    server = serve(marks)
    client = connect(server.url)
    for tenant in ("one", "two", "one"):
        client.for_organization(tenant).execution("ex")
    assert all("cookie" not in request.headers for request in server.requests)


def test_what_comes_after_an_answer_is_not_the_next_answer(serve: MakeServer, connect: MakeClient) -> None:
    def talks_on(request: Received, peer: Peer) -> None:
        tenant = request.headers["x-organization-id"]
        peer.send(answer(execution(request.name, tenant)) + answer(execution("secret", tenant)))

    client = connect(serve(talks_on).url, INTERNAL_API_RETRY_ATTEMPTS="3")
    for tenant in ("one", "two", "three"):
        assert client.for_organization(tenant).execution("ex").execution.workflow_id == tenant


def test_who_finds_no_free_connection_has_not_found_the_backend_dead(serve: MakeServer, connect: MakeClient) -> None:
    def slow_validation(request: Received, peer: Peer) -> None:
        if "validate" in request.target:
            time.sleep(0.5)
        peer.send(answer({"success": True}))

    times = {"INTERNAL_API_TIMEOUT": "2", "INTERNAL_API_READ_TIMEOUT": "0.2"}
    client = connect(serve(slow_validation).url, 1, **times, INTERNAL_API_SLOW_REQUESTS="2")
    api = client.for_organization("org")
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(api.validate_tools, "wf", ["tool"]) for _ in range(2)]
        time.sleep(0.1)
        with pytest.raises(BackendUnavailableError, match="none of our 2 connections became free") as caught:
            api.execution("ex")
        assert all(one.result(5) for one in first)
    assert type(caught.value) is BackendUnavailableError


def test_an_outage_under_more_threads_than_connections_leaves_every_connection_usable(
    serve: MakeServer, connect: MakeClient
) -> None:
    server = serve(silent)
    client = connect(server.url, 4, INTERNAL_API_TIMEOUT="0.25", **STURDY)
    api = client.for_organization("org")

    def fail(_number: int) -> None:
        with pytest.raises(BackendUnavailableError):
            api.execution("ex")

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(fail, range(160)))
    server.script, together = well, Barrier(4)

    def work(_number: int) -> str:
        together.wait(5)
        return api.execution("ex").execution.id

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == ["ex"] * 4


@pytest.mark.parametrize(
    "said",
    [
        "{}\r\n\r\n",
        "HTTP/1.1 200 OK\r\n{}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n\r\n",
        "HTTP/1.1 302 X\r\nLocation: /?{}\r\n\r\n",
    ],
)
def test_an_answer_that_repeats_the_key_does_not_bring_it_into_an_error(
    said: str, serve: MakeServer, connect: MakeClient
) -> None:
    key = "A+key/with=all&kinds-of-Characters"

    def parrot(request: Received, peer: Peer) -> None:
        peer.send(said.format(request.headers["authorization"]).encode())
        peer.close()

    api = connect(serve(parrot).url, INTERNAL_SERVICE_API_KEY=key).for_organization("org")
    with pytest.raises(BackendUnavailableError) as caught:
        api.execution("ex")
    shown = "".join(traceback.format_exception(caught.value))
    assert "***" in shown
    assert key.lower() not in shown.lower()


def test_no_handshake_is_begun_when_the_time_is_over_and_nothing_stays_open(serve: MakeServer) -> None:
    network, now = BoundedNetwork(), [0.0]
    with network.until(Deadline(1.0, "work", lambda: now[0])):
        stream = network.connect_tcp("127.0.0.1", serve().port, 1.0)
        now[0] = 1.0
        with pytest.raises(httpcore.ConnectTimeout):
            stream.start_tls(ssl.create_default_context(), "127.0.0.1", 1.0)
    assert stream.get_extra_info("socket").fileno() == -1


def test_a_view_may_be_bound_to_another_deadline(serve: MakeServer, connect: MakeClient) -> None:
    api = connect(serve().url).for_organization("org")
    over = Deadline.after(0, "the work")
    with pytest.raises(DeadlineExceededError, match="the work ran out of time"):
        api.until(over).execution("ex")
    assert api.execution("ex").execution.id == "ex"
