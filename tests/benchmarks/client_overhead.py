"""What our client costs above bare httpx: `uv run python -m tests.benchmarks.client_overhead`.

A server in a process of its own answers with one execution row. CPU time: alternating rounds of one thread, ours and
bare. Throughput: 32 threads through one client against 32 through one bare `httpx.Client` with the same pool. Only
ratios within one run mean anything: two runs differ by more than what is measured.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import httpx

from shared.api_client import InternalAPIClient
from tests.fakes import settings

THREADS, SLOTS = 32, 32
ID = "3f0c2b7e-8f57-4f0e-9d0a-6a3b2f1c9e55"
PATH = f"v1/workflow-execution/{ID}/?file_execution=false"
HEADERS = {
    "Authorization": "Bearer unit-test-key",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "X-Organization-ID": "org",
}
_ROW = {
    "id": ID,
    "workflow_id": "9b1d4c62-0f5e-4c7a-8a43-1de2f0a7b6c3",
    "status": "EXECUTING",
    "pipeline_id": None,
    "total_files": 12,
    "attempts": 1,
    "execution_time": 3.5,
    "created_at": "2026-11-21T05:00:00Z",
    "tags": ["nightly", "invoices"],
}
_BODY = json.dumps(
    {
        "execution": _ROW,
        "workflow_definition": {
            "workflow_id": _ROW["workflow_id"],
            "workflow_name": "Invoices",
            "tool_count": 3,
            "notes": "n" * 400,
        },
        "source_config": {"is_api": True, "settings": {"folders": [f"/in/{number}" for number in range(20)]}},
        "destination_config": {"type": "DATABASE", "settings": {"table": "invoices", "columns": "c" * 200}},
        "organization_context": {"organization_id": "org", "name": "Organization"},
        "file_executions": [],
    }
).encode()
_ANSWER = (
    f"HTTP/1.1 200 OK\r\nServer: fixed\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
).encode() + _BODY


class _Fixed(asyncio.Protocol):
    """One answer for each end of a request's head; our requests have no body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._out = transport

    def data_received(self, data: bytes) -> None:
        self._out.write(_ANSWER * data.count(b"\r\n\r\n"))


def _serve(ready: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Fixed, "127.0.0.1", 0, backlog=256)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def _cpu(call: Callable[[], Any], calls: int) -> float:
    """Microseconds of CPU of one call."""
    begun = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - begun) / calls * 1e6


def _rate(call: Callable[[], Any], calls: int) -> float:
    """Calls per second of all threads together."""

    def turn(_number: int) -> None:
        for _ in range(calls // THREADS):
            call()

    with ThreadPoolExecutor(THREADS) as pool:
        begun = time.perf_counter()
        list(pool.map(turn, range(THREADS)))
        return calls // THREADS * THREADS / (time.perf_counter() - begun)


def _print(what: str, unit: str, bare: list[float], ours: list[float]) -> None:
    ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    numbers = (statistics.median(bare), statistics.median(ours), statistics.median(ratios), min(ratios), max(ratios))
    sys.stdout.write(f"{what:<26}{unit:>8}" + "".join(f"{number:>10.2f}" for number in numbers) + "\n")


def _measure(url: str, rounds: int, calls: int) -> None:
    limits = httpx.Limits(max_connections=SLOTS, max_keepalive_connections=SLOTS)
    client = InternalAPIClient(settings(INTERNAL_API_BASE_URL=url), SLOTS)
    plain = httpx.Client(base_url=f"{url}/", timeout=httpx.Timeout(30, connect=5), trust_env=False, limits=limits)
    with client, plain as bare:
        api = client.for_organization("org")

        def ours() -> Any:
            return api.execution(ID)

        def theirs() -> Any:
            return bare.get(PATH, headers=HEADERS).json()

        sys.stdout.write(f"{'':<26}{'':>8}{'bare':>10}{'ours':>10}{'ratio':>10}{'min':>10}{'max':>10}\n")
        for what, unit, measured in (("CPU, one thread", "us/call", _cpu), (f"{THREADS} threads", "calls/s", _rate)):
            measured(theirs, calls), measured(ours, calls)  # warm
            found = [(measured(theirs, calls), measured(ours, calls)) for _ in range(rounds)]
            _print(what, unit, [one[0] for one in found], [one[1] for one in found])


def main() -> None:
    parser = argparse.ArgumentParser(description="What our client costs above bare httpx.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=1_000)
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ready, ours = context.Pipe(duplex=False)
    server = context.Process(target=_serve, args=(ours,), daemon=True)
    server.start()
    try:
        _measure(f"http://127.0.0.1:{ready.recv()}/internal", asked.rounds, asked.calls)
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
