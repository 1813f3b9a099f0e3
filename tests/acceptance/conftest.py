"""A fleet: the reference backend and workers as processes, with one user."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from sandbox.driver import Driver
from sandbox.stack import FOUR, Stack

Fleet = tuple[Stack, Driver]
# Small enough that slices, polls and 202 answers all happen within a test.
QUICK = {
    "BATCH_SLICE_SECONDS": "2",
    "INTERNAL_API_TIMEOUT": "1.9",
    "INTERNAL_API_RETRY_BACKOFF_FACTOR": "0.05",
    "CIRCUIT_BREAKER_RECOVERY_TIMEOUT": "1",
}
BACKEND = {"SANDBOX_TOOL_WAIT_SECONDS": "0.3"}


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.matrix), "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str | None:
    """The stack's own broker, which is its state store, and then RabbitMQ."""
    return request.getfixturevalue("rabbitmq_url") if request.param == "rabbitmq" else None


@contextmanager
def started(broker_url: str | None = None, *profiles: str, **settings: str) -> Iterator[Fleet]:
    """A state store, a backend and workers, the four unless others are named, as long as this block."""
    with Stack(broker_url) as stack:
        stack.start_redis()
        stack.start_backend(**BACKEND)
        stack.start_workers(*(profiles or FOUR), **QUICK | settings)
        stack.wait_until_ready()
        with Driver(stack) as driver:
            yield stack, driver


@pytest.fixture
def start_fleet() -> Iterator[Callable[..., Fleet]]:
    """Start a fleet of one's own; it ends with the test."""
    with ExitStack() as held:

        def start(*profiles: str, broker_url: str | None = None, **settings: str) -> Fleet:
            return held.enter_context(started(broker_url, *profiles, **settings))

        yield start


@pytest.fixture(scope="module")
def shared() -> Iterator[Fleet]:
    """One fleet of four workers for all tests of a module, unless the module has another."""
    with started() as fleet:
        yield fleet


@pytest.fixture
def fleet(shared: Fleet) -> Fleet:
    """The module's fleet in fair weather: the backend's faults are off, and its counters at zero."""
    stack, driver = shared
    driver.control("PUT", "switches", {"reset": True})
    driver.control("DELETE", "stats")
    return stack, driver
