"""Hostile servers and their clients, closed after their test."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from shared.api_client import InternalAPIClient
from tests.integration.client.clients import MakeClient, MakeServer, client_of
from tests.integration.client.hostile import HostileServer, Script, well


@pytest.fixture
def serve() -> Iterator[MakeServer]:
    """Servers that end with the test: `serve(script, tls=, greet=)`."""
    with ExitStack() as stack:

        def make(script: Script = well, **options: Any) -> HostileServer:
            return stack.enter_context(HostileServer(script, **options))

        yield make


@pytest.fixture
def connect() -> Iterator[MakeClient]:
    """Clients that end with the test: `connect(url, slots, **variables)`."""
    with ExitStack() as stack:

        def make(url: str, slots: int = 10, **variables: str) -> InternalAPIClient:
            return stack.enter_context(client_of(url, slots, **variables))

        yield make
