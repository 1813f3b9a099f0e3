"""Every fault of an answer, from a real socket: one typed error, in time, and nothing is left behind."""

import gc
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from shared.api_client import InternalAPIClient
from shared.deadline import Deadline
from shared.errors import AnswerTooLargeError, BackendBusyError, BackendUnreachableError, DeadlineExceededError
from tests.integration.client.clients import HASTY, LARGEST, LATE, STURDY, TIMEOUT, MakeClient, MakeServer
from tests.integration.client.faults import FAULTS, by_name, sends
from tests.integration.client.hostile import answer, execution, head, well

ENDLESS = [name for name, fault in FAULTS.items() if fault.endless]
STEP = r"ran out of time: GET v1/workflow-execution/\{execution_id\}/ took 0\.\d s"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_typed_error_in_time(name: str, serve: MakeServer, connect: MakeClient) -> None:
    server, fault = serve(by_name), FAULTS[name]
    client, begun = connect(server.url, **(HASTY if fault.endless else {})), time.monotonic()
    with pytest.raises(fault.error, match=fault.says) as caught:
        client.for_organization("org").execution(name)
    took = time.monotonic() - begun
    assert type(caught.value) is fault.error
    assert (TIMEOUT if fault.endless else 0) <= took <= TIMEOUT + LATE
    assert server.names() == [name]
    assert "unit-test-key" not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.parametrize("name", ENDLESS)
def test_the_work_a_request_is_for_may_end_it_sooner(name: str, serve: MakeServer, connect: MakeClient) -> None:
    api = connect(serve(by_name).url, INTERNAL_API_TIMEOUT="30").for_organization("org", Deadline.after(0.2, "a file"))
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=f"a file {STEP}"):
        api.execution(name)
    assert 0.2 <= time.monotonic() - begun <= 0.2 + LATE


@pytest.mark.parametrize("name", ["retry-after-a-day", "retry-after-tomorrow", "retry-after-for-ever"])
def test_a_day_is_not_waited_out(name: str, serve: MakeServer, connect: MakeClient) -> None:
    server = serve(by_name)
    api = connect(server.url, INTERNAL_API_RETRY_ATTEMPTS="3").for_organization("org")
    with pytest.raises(BackendBusyError) as caught:
        api.execution(name)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 86_400
    assert len(server.requests) == 1


def test_an_answer_of_just_the_bound_is_read(serve: MakeServer, connect: MakeClient) -> None:
    whole = answer(execution())
    body = whole.partition(b"\r\n\r\n")[2]
    full = head(Content_Type="application/json") + body + b" " * (LARGEST - len(body))
    assert connect(serve(sends(full)).url).for_organization("org").execution("ex").execution.id == "ex"


def test_after_every_fault_the_same_client_works(serve: MakeServer, connect: MakeClient) -> None:
    server = serve(lambda request, peer: (by_name if request.name in FAULTS else well)(request, peer))
    client = connect(server.url, 8, INTERNAL_API_TIMEOUT="0.2", **STURDY)
    _suffer(client)
    assert client.for_organization("org").execution("ex").execution.id == "ex"


def test_nothing_leaks(serve: MakeServer, connect: MakeClient) -> None:
    server = serve(by_name)
    client = connect(server.url, 8, INTERNAL_API_TIMEOUT="0.2", **STURDY)

    def held() -> tuple[int, int, int]:
        _suffer(client)
        server.forget()
        # An idle connection that the other end closed is given up by the next request, not before.
        with pytest.raises(BackendUnreachableError):
            client.for_organization("org").execution("close-before-headers")
        server.forget()
        gc.collect()
        this = psutil.Process()
        return threading.active_count(), this.num_fds(), tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        held()  # what is made once is no leak
        *before, memory = held()
        *after, memory_after = held()
    finally:
        tracemalloc.stop()
    assert after == before
    # Some forty faults: less than the body of two. A measured test run keeps notes of its own.
    assert memory_after - memory < 2 * LARGEST


def test_a_bomb_is_not_unfolded(serve: MakeServer, connect: MakeClient) -> None:
    api = connect(serve(by_name).url).for_organization("org")
    tracemalloc.start()
    try:
        with pytest.raises(FAULTS["gzip-bomb"].error):
            api.execution("gzip-bomb")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["endless-body", "endless-chunks", "length-of-an-exabyte", "error-beyond-the-bound"])
def test_what_is_too_large_is_not_held_first(name: str, serve: MakeServer, connect: MakeClient) -> None:
    api = connect(serve(by_name).url, INTERNAL_API_TIMEOUT="5").for_organization("org")
    tracemalloc.start()
    try:
        with pytest.raises(AnswerTooLargeError):
            api.execution(name)
        assert tracemalloc.get_traced_memory()[1] < 20 * LARGEST
    finally:
        tracemalloc.stop()


def _suffer(client: InternalAPIClient) -> None:
    """Meet every fault, eight at a time, but those that ask for a pause: it would hold up the others."""

    def meet(name: str) -> None:
        with pytest.raises((FAULTS[name].error, BackendUnreachableError)):  # a slow machine ends any by time
            client.for_organization("org").execution(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(meet, [name for name, fault in FAULTS.items() if fault.error is not BackendBusyError]))
