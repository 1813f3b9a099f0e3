"""What a dead backend receives, counted at its socket; and who does not pass for dead."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared import endpoints
from shared.api_client import InternalAPIClient
from shared.backend_models import Acknowledgement
from shared.backend_protocol import Endpoint
from shared.errors import BackendFailedError, BackendUnavailableError, BackendUnreachableError, CircuitOpenError
from tests.integration.client.clients import MakeClient, MakeServer
from tests.integration.client.faults import silent
from tests.integration.client.hostile import Peer, Received, answer, reset, reset_at_once, well

ONCE = Endpoint("POST", "v1/not-repeatable/", Acknowledgement)
VOLUME = 10


def ask(client: InternalAPIClient, name: str = "ex", tenant: str = "org") -> str:
    """How that ended."""
    try:
        client.for_organization(tenant).execution(name)
    except BackendUnavailableError as error:
        return type(error).__name__
    return "well"


def together(threads: int, times: int, work: Callable[[int], str]) -> list[str]:
    """The endings of that many calls, of so many threads that begin at once."""
    begin = threading.Barrier(threads)

    def turn(number: int) -> list[str]:
        begin.wait(5)
        return [work(number) for _ in range(times)]

    with ThreadPoolExecutor(threads) as pool:
        return [ending for endings in pool.map(turn, range(threads)) for ending in endings]


@pytest.mark.parametrize("attempts", [1, 3, 5])
def test_one_call_is_as_many_connections_as_it_has_attempts(
    attempts: int, serve: MakeServer, connect: MakeClient
) -> None:
    server = serve(greet=reset_at_once)
    with pytest.raises(BackendUnreachableError):
        connect(server.url, INTERNAL_API_RETRY_ATTEMPTS=str(attempts)).for_organization("org").execution("ex")
    assert len(server.connects) == attempts


@pytest.mark.parametrize("dead", [{"greet": reset_at_once}, {"script": reset}], ids=["accept", "request"])
def test_what_must_not_be_repeated_is_sent_once(
    dead: dict[str, object], serve: MakeServer, connect: MakeClient
) -> None:
    server = serve(**dead)
    with pytest.raises(BackendUnreachableError):
        connect(server.url, INTERNAL_API_RETRY_ATTEMPTS="5").call(ONCE({}), "org")
    assert len(server.connects) == 1


@pytest.mark.parametrize(("threads", "attempts"), [(1, 1), (8, 1), (8, 3)])
def test_a_dead_backend_opens_the_circuit_at_once(
    threads: int, attempts: int, serve: MakeServer, connect: MakeClient
) -> None:
    server = serve(greet=reset_at_once)
    client = connect(server.url, INTERNAL_API_RETRY_ATTEMPTS=str(attempts))
    endings = together(threads, 12, lambda _number: ask(client))
    assert client.circuits["records"] == "open"
    # Those that were on their way when the last one needed was heard.
    assert VOLUME <= len(server.connects) <= VOLUME + threads - 1
    assert endings.count("CircuitOpenError") >= threads * 12 - len(server.connects)
    before = len(server.connects)
    assert set(together(8, 5, lambda _number: ask(client))) == {"CircuitOpenError"}
    assert len(server.connects) == before


def test_death_after_health_opens_the_circuit_as_soon(serve: MakeServer, connect: MakeClient) -> None:
    server = serve()
    client = connect(server.url)
    assert set(together(4, 50, lambda _number: ask(client))) == {"well"}
    server.script, before = reset, len(server.requests)
    while client.circuits["records"] == "closed":
        assert ask(client) == "BackendUnreachableError"
    assert len(server.requests) - before == VOLUME


def test_silence_is_death(serve: MakeServer, connect: MakeClient) -> None:
    server = serve(silent)
    client = connect(server.url, 12, INTERNAL_API_TIMEOUT="0.2")
    assert set(together(12, 1, lambda _number: ask(client))) == {"BackendUnreachableError"}
    assert client.circuits["records"] == "open"


def test_another_group_is_still_asked(serve: MakeServer, connect: MakeClient) -> None:
    server = serve(lambda request, peer: (well if request.target.endswith("/execute-file/") else reset)(request, peer))
    client = connect(server.url)
    together(1, VOLUME, lambda _number: ask(client))
    assert client.circuits == {"records": "open", "bulk": "closed", "tools": "closed"}
    assert client.call(endpoints.EXECUTE_FILE({}), "org").status == "COMPLETED"


@pytest.mark.parametrize("well_again", [True, False])
def test_a_half_open_circuit_sends_one_probe(
    well_again: bool,
    serve: MakeServer,
    connect: MakeClient,
) -> None:
    def slow_probe(request: Received, peer: Peer) -> None:
        time.sleep(0.15)
        (well if well_again else reset)(request, peer)

    server = serve(reset)
    client = connect(server.url, 16, CIRCUIT_BREAKER_RECOVERY_TIMEOUT="0.3")
    together(1, VOLUME, lambda _number: ask(client))
    server.script, before = slow_probe, len(server.requests)
    time.sleep(0.35)
    endings = together(16, 1, lambda _number: ask(client))
    assert len(server.requests) - before == 1
    assert Counter(endings) == {"CircuitOpenError": 15, "well" if well_again else "BackendUnreachableError": 1}
    assert client.circuits["records"] == ("closed" if well_again else "open")


def bad_ids(request: Received, peer: Peer) -> None:
    if request.name.startswith("unknown"):
        peer.send(answer({"error": "Internal Server Error"}, "500 Internal Server Error"))
    else:
        well(request, peer)


def test_a_storm_of_bad_ids_shuts_nobody_out(serve: MakeServer, connect: MakeClient) -> None:
    server = serve(bad_ids)
    client = connect(server.url, 16)
    endings: dict[str, list[str]] = {"storm": [], "a": [], "b": [], "c": []}
    calls = [("storm", "unknown")] * 600 + [(tenant, "ex") for tenant in "abc" for _ in range(20)]
    random.Random(7).shuffle(calls)  # noqa: S311 # the same order each time

    def one(call: tuple[str, str]) -> None:
        endings[call[0]].append(ask(client, call[1], call[0]))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, calls))
    assert set(endings["storm"]) == {"BackendFailedError"}
    assert [endings[tenant] for tenant in "abc"] == [["well"] * 20] * 3
    assert len(server.requests) == len(calls)


def test_a_lone_tenant_s_bad_ids_shut_nobody_out(serve: MakeServer, connect: MakeClient) -> None:
    server = serve(bad_ids)
    client = connect(server.url)
    assert set(together(4, 25, lambda _number: ask(client, "unknown"))) == {"BackendFailedError"}
    assert ask(client, "ex", "another") == "well"
    assert len(server.requests) == 101


def test_500s_of_every_tenant_are_an_outage(serve: MakeServer, connect: MakeClient) -> None:
    client = connect(serve(bad_ids).url)
    for number in range(100):
        try:
            client.for_organization(f"tenant-{number % 4}").execution("unknown")
        except CircuitOpenError:
            break
        except BackendFailedError:
            continue
    assert client.circuits["records"] == "open"
