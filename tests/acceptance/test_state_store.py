"""A state store that may lose what running executions need is named when a worker starts."""

from collections.abc import Callable

from sandbox.stack import wait_for
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import events


def test_a_store_that_keeps_nothing_is_named_in_the_log_at_start(start_fleet: Callable[..., Fleet]) -> None:
    stack, _ = start_fleet("callback")
    wait_for(lambda: bool(events(stack, "callback", "state_store")), 10, "the warning")
    (warned,) = events(stack, "callback", "state_store")
    assert warned["level"] == "warning"
    assert warned["what"] == "state store, persistence"
    assert warned["remedy"] == "set appendonly to yes"
