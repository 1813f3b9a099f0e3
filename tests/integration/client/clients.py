"""Clients that try once, and what makes them."""

from collections.abc import Callable

from shared.api_client import InternalAPIClient
from tests.fakes import settings
from tests.integration.client.hostile import HostileServer

LARGEST = 65_536
TIMEOUT = 0.3
# What a thread may be late where two cores run all of it, and other tests besides.
LATE = 0.8
QUICK = {
    "INTERNAL_API_TIMEOUT": "5",
    "INTERNAL_API_RETRY_ATTEMPTS": "1",
    "INTERNAL_API_RETRY_BACKOFF_FACTOR": "0",
    "INTERNAL_API_MAX_RESPONSE_BYTES": str(LARGEST),
}
# Only for what waits in vain: a busy machine takes longer than this for what works.
HASTY = {"INTERNAL_API_TIMEOUT": str(TIMEOUT)}
# A circuit that nothing here opens.
STURDY = {"CIRCUIT_BREAKER_MINIMUM_VOLUME": "1000", "CIRCUIT_BREAKER_FAILURE_THRESHOLD": "1000"}

MakeClient = Callable[..., InternalAPIClient]
MakeServer = Callable[..., HostileServer]


def client_of(url: str, slots: int = 10, **variables: str) -> InternalAPIClient:
    return InternalAPIClient(settings(**(QUICK | {"INTERNAL_API_BASE_URL": url} | variables)), slots)
