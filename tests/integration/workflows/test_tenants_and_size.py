"""Many tenants at once never meet, and a large run is a small burden: a worker of this process, a real broker."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import redis

from shared.errors import WorkerError
from shared.task import tried
from shared.workflows.attempts import Limits
from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow
from tests.conformance import engines
from tests.conformance.engines import World
from tests.fakes import ENVIRONMENT
from tests.integration.workflows.desk import desk

ITEMS = 1_000  # 5,000 take 17 s


class Backend(ThreadingHTTPServer):
    """Remembers which organization each request was for. It answers nothing that anybody understands."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = defaultdict(set)
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/internal"


class Handler(BaseHTTPRequestHandler):
    server: Backend
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        execution = next(part for part in self.path.split("?")[0].split("/") if part.startswith("ex-"))
        self.server.seen[execution].add(self.headers["X-Organization-ID"])
        self.send_response(404)
        self.send_header("Content-Length", "2")
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Be silent."""


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@workflow(name="asking")
class Asking(BaseWorkflow):
    @task(name="split")
    def split(self, input_data: str, ctx: TaskContext) -> Any:
        return self.ask(input_data, ctx, 0) and {"pages": [1, 2]}

    @task(name="page", parents=["split"], map_over="pages")
    def page(self, page: int, ctx: TaskContext) -> Any:
        return self.ask(str(ctx.workflow_input), ctx, page)

    def ask(self, tenant: str, ctx: TaskContext, at: int) -> Any:
        answer, error = tried(lambda: ctx.client.execution(f"ex-{tenant}-{ctx.run_id}-{at}"))
        assert answer is None
        assert isinstance(error, WorkerError)
        return [ctx.organization_id, type(error).__name__]


def test_tenants_never_cross(redis_url: str, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "INTERNAL_API_BASE_URL", backend.url)
    with engines.fleet(redis_url, redis_url) as world:
        client = world.client(Asking)
        runs = [
            (f"org_{tenant}", client.start_workflow("asking", f"org_{tenant}", organization_id=f"org_{tenant}"))
            for _ in range(10)
            for tenant in range(8)
        ]
        for tenant, run_id in runs:
            assert client.result(run_id, 60) == {"page": [[tenant, "NotFoundError"]] * 2}
    assert len(backend.seen) == 8 * 10 * 3
    for execution, organizations in backend.seen.items():
        assert organizations == {execution.split("-")[1]}


@workflow(name="large")
class Large(BaseWorkflow):
    @task(name="split")
    def split(self, _input_data: Any, _ctx: TaskContext) -> Any:
        return {"pages": [{"number": at, "text": "x" * 100} for at in range(ITEMS)]}

    @task(name="page", parents=["split"], map_over="pages")
    def page(self, page: dict[str, Any], _ctx: TaskContext) -> Any:
        return {"number": page["number"], "found": "y" * 100}

    @task(name="count", parents=["page"])
    def count(self, _input_data: Any, ctx: TaskContext) -> int:
        return len(ctx.task_output("page"))


def test_a_run_over_a_thousand_items(redis_url: str, record_property: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Limits(output=10_000_000, items=ITEMS)
    monkeypatch.setattr(engines, "LIMITS", wide)
    with engines.fleet(redis_url, redis_url) as world:
        _run_large(world, redis_url, record_property)


def _run_large(world: World, redis_url: str, record_property: Any) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:
        store.flushdb()
        client, before, begun = world.client(Large), _used(store), time.monotonic()
        run_id, most = client.start_workflow("large"), 0.0
        while client.status(run_id).ended is None:
            most = max(most, _used(store) - before)
            assert time.monotonic() - begun < 240
            time.sleep(0.2)
        seconds = time.monotonic() - begun
        assert client.result(run_id) == {"count": ITEMS}
        left = _used(store) - before
        events = sum(1 for _ in client.events(run_id))
        for name, value in (("seconds", seconds), ("most_mb", most), ("left_mb", left), ("events", events)):
            record_property(name, value)
        assert seconds < 120
        assert most < 40
        assert left < 10


def _used(store: "redis.Redis") -> float:
    info: Any = store.info("memory")
    return float(info["used_memory"]) / 1e6


def test_the_events_of_a_run_are_bounded(redis_url: str) -> None:
    with desk(redis_url) as fleet:

        class Talks(BaseWorkflow):
            @task(name="talk")
            def talk(self, _input_data: Any, ctx: TaskContext) -> None:
                for at in range(52_000):
                    ctx.progress(at)

        client = fleet.client(workflow(name="talks")(Talks))
        run_id = client.start_workflow("talks")
        fleet.drain()
        assert int(fleet.redis.xlen(f"workers:workflow:{run_id}:events")) < 50_500
        assert list(client.events(run_id))[-1].last
