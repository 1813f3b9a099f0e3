"""Requests that make the backend work long, and the patience it asks for, as its own socket sees them."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from shared import endpoints
from shared.api_client import InternalAPIClient
from shared.errors import BackendUnavailableError
from shared.models import FileData, FileHash
from tests.integration.client.clients import LATE, MakeClient, MakeServer
from tests.integration.client.hostile import Peer, Received, answer, execution, well

DATA = FileData(workflow_id="wf", execution_id="ex", organization_id="org")
BUSY = answer({"error": "no capacity"}, "503 Service Unavailable", Retry_After="1")
SECOND = 1.0


def slow(request: Received) -> bool:
    return request.target.endswith(("/execute-file/", "/validate/"))


class FewThreads:
    """A backend that works at so many requests at once, long at some, and counts those."""

    def __init__(self, threads: int, seconds: float) -> None:
        self._threads, self._seconds = threading.Semaphore(threads), seconds
        self._lock, self._slow, self.most = threading.Lock(), 0, 0

    def __call__(self, request: Received, peer: Peer) -> None:
        with self._threads:
            if not slow(request):
                peer.send(answer({"status": "updated"}) if request.method == "POST" else answer(execution()))
                return
            self._count(1)
            time.sleep(self._seconds)
            self._count(-1)
            done = {"success": True} if "validate" in request.target else {"status": "COMPLETED", "result": {}}
            peer.send(answer(done))

    def _count(self, change: int) -> None:
        with self._lock:
            self._slow += change
            self.most = max(self.most, self._slow)


def run_a_file(client: InternalAPIClient, number: int) -> None:
    api = client.for_organization("org")
    if number % 3:
        api.execute_file(f"fe-{number}", DATA, FileHash(file_name="a"))
    else:
        api.validate_tools("wf", ["tool"])


@pytest.mark.parametrize(("slots", "limit", "most"), [(6, "0", 6), (8, "2", 2), (8, "4", 4), (1, "0", 1)])
def test_slow_requests_share_a_part_of_the_connections(
    slots: int, limit: str, most: int, serve: MakeServer, connect: MakeClient
) -> None:
    backend = FewThreads(8, 0.06)
    client = connect(serve(backend).url, slots, INTERNAL_API_TIMEOUT="5", INTERNAL_API_SLOW_REQUESTS=limit)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: run_a_file(client, number), range(max(16, slots))[: most * 4]))
    assert backend.most == most


def test_a_status_is_written_promptly_while_tools_work(serve: MakeServer, connect: MakeClient) -> None:
    client = connect(serve(FewThreads(10, 0.3)).url, 8, INTERNAL_API_TIMEOUT="5")
    waits: list[float] = []
    with ThreadPoolExecutor(16) as pool:
        running = [pool.submit(run_a_file, client, number) for number in range(16)]
        time.sleep(0.1)
        while not all(one.done() for one in running):
            begun = time.monotonic()
            client.call(endpoints.FILE_STATUS({"status": "COMPLETED"}, file_execution_id="fe"), "org")
            waits.append(time.monotonic() - begun)
        for one in running:
            one.result()
    assert len(waits) > 20
    assert sorted(waits)[len(waits) * 9 // 10] < 0.2


def keep(client: InternalAPIClient, until: float, ask: Callable[[InternalAPIClient], object]) -> None:
    while time.monotonic() < until:
        try:
            ask(client)
        except BackendUnavailableError:
            time.sleep(0.02)


@pytest.mark.parametrize(("status", "limit"), [("503 Service Unavailable", "0"), ("429 Too Many Requests", "2")])
def test_a_pause_is_kept_by_all_threads_and_by_its_group_alone(
    status: str, limit: str, serve: MakeServer, connect: MakeClient
) -> None:
    asked: list[float] = []
    tools, lock = count(1), threading.Lock()

    def busy_once(request: Received, peer: Peer) -> None:
        if not slow(request):
            well(request, peer)
            return
        time.sleep(0.03)
        with lock:
            fifth = next(tools) == 5
        if fifth:
            asked.append(time.monotonic())
        peer.send(BUSY.replace(b"503 Service Unavailable", status.encode()) if fifth else answer({"status": "PENDING"}))

    server = serve(busy_once)
    client = connect(server.url, 8, INTERNAL_API_TIMEOUT="5", INTERNAL_API_SLOW_REQUESTS=limit)
    until = time.monotonic() + 1.6
    with ThreadPoolExecutor(16) as pool:
        for _ in range(8):
            pool.submit(keep, client, until, lambda one: one.call(endpoints.EXECUTE_FILE({}), "org"))
            pool.submit(keep, client, until, lambda one: one.for_organization("org").execution("ex"))
    arrived: dict[bool, list[float]] = defaultdict(list)
    for request in server.requests:
        arrived[slow(request)].append(request.at - asked[0])
    # What was on its way when the answer left could not know.
    assert [at for at in arrived[True] if LATE / 2 < at < SECOND] == []
    assert [at for at in arrived[True] if at > SECOND] != []
    assert len([at for at in arrived[False] if LATE / 2 < at < SECOND]) > 50
