"""Receivers of webhooks that misbehave down to the byte, and what sends to them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from general.webhooks import Webhooks
from shared.network import addresses_of
from tests.fakes import settings
from tests.integration.client.hostile import HostileServer, Script

LOOPBACK = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
MakeReceiver = Callable[..., HostileServer]
MakeWebhooks = Callable[..., Webhooks]


@pytest.fixture
def receive() -> Iterator[MakeReceiver]:
    """Receivers that end with the test: `receive(script, tls=)`."""
    with ExitStack() as held:

        def make(script: Script, **options: Any) -> HostileServer:
            return held.enter_context(HostileServer(script, **options))

        yield make


@pytest.fixture
def connect() -> Iterator[MakeWebhooks]:
    """Senders that end with the test: `connect(resolve=, tls=, **variables)`; loopback is allowed unless said."""
    with ExitStack() as held:

        def make(resolve: Any = addresses_of, tls: Any = None, **variables: str) -> Webhooks:
            made = Webhooks(settings(**LOOPBACK | variables), resolve, tls)
            held.callback(made.close)
            return made

        yield make
