"""Reservations over both citizens of the state store's border: two runs of a pipeline never take the same file."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.errors import StateStoreError
from shared.execution_state import ExecutionState, Run
from shared.redis_connection import redis_client
from shared.reservations import Reservations
from tests.fakes import memory, settings

HASH = "workers:reservations:wf"


@pytest.fixture(params=["redis", "memory"])
def client(request: pytest.FixtureRequest) -> Any:
    found = memory() if request.param == "memory" else request.getfixturevalue("redis_connection")
    state = ExecutionState(found, 100, 10)
    for execution_id in ("one", "two"):
        state.register(Run(execution_id, "org", "wf", None, is_api=False))
    return found


@pytest.fixture
def reservations(client: Any) -> Reservations:
    return Reservations(client)


def test_a_file_is_one_executions_and_the_other_hears_whose(reservations: Reservations) -> None:
    assert reservations.reserve("wf", "one", ["a", "b"], 60) == {}
    assert reservations.reserve("wf", "two", ["b", "c"], 60) == {"b": "one"}
    assert reservations.reserve("wf", "one", ["c"], 60) == {"c": "two"}


def test_an_execution_is_not_in_its_own_way(reservations: Reservations) -> None:
    """A kick-off that is delivered again finds the files of the first delivery."""
    for _ in range(2):
        assert reservations.reserve("wf", "one", ["a", "b"], 60) == {}


def test_workflows_are_apart(reservations: Reservations) -> None:
    assert reservations.reserve("wf", "one", ["a"], 60) == {}
    assert reservations.reserve("another", "two", ["a"], 60) == {}


def test_a_reservation_ends(reservations: Reservations) -> None:
    reservations.reserve("wf", "one", ["a"], -1)
    assert reservations.reserve("wf", "two", ["a"], 60) == {}


def test_what_is_released_is_free_and_nobody_elses_goes(reservations: Reservations, client: Any) -> None:
    reservations.reserve("wf", "one", ["a", "b"], 60)
    reservations.reserve("wf", "two", ["c"], 60)
    assert reservations.release("wf", "one") == 2
    assert reservations.release("wf", "one") == 0
    assert reservations.reserve("wf", "two", ["a"], 60) == {}
    assert reservations.release("wf", "two") == 2
    assert not client.exists(HASH)
    assert not client.exists("workers:reservations")


def test_who_is_gone_holds_nothing(reservations: Reservations, client: Any) -> None:
    reservations.reserve("wf", "one", ["a", "b"], 60)
    reservations.reserve("wf", "two", ["c"], 60)
    reservations.reserve("another", "two", ["d"], -1)
    assert reservations.release_expired() == 1
    ExecutionState(client, 100, 10).forget("one")
    assert reservations.release_expired() == 2
    assert set(client.hkeys(HASH)) == {"c"}
    assert reservations.release_expired() == 0


def test_any_name_can_be_reserved(reservations: Reservations) -> None:
    names = ["a b", "tab\tand\nline", "ünïcödé/✓", ":", "-"]
    assert reservations.reserve("wf", "one", names, 60) == {}
    assert reservations.reserve("wf", "two", names, 60) == dict.fromkeys(names, "one")


def test_ten_thousand_files_at_once(reservations: Reservations) -> None:
    names = [f"etag-{number}:in/{number}.pdf" for number in range(10_000)]
    begun = time.monotonic()
    assert reservations.reserve("wf", "one", names[:5_000], 60) == {}
    assert reservations.reserve("wf", "two", names, 60) == dict.fromkeys(names[:5_000], "one")
    assert reservations.release("wf", "two") == 5_000
    assert time.monotonic() - begun < 10


def test_two_executions_at_once_share_no_file(reservations: Reservations) -> None:
    names = [str(number) for number in range(2_000)]

    def take(execution_id: str) -> set[str]:
        return set(names) - set(reservations.reserve("wf", execution_id, names, 60))

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(take, ("one", "two"))
    assert one | two == set(names)
    assert not one & two


def test_an_absent_store_is_a_typed_error() -> None:
    with redis_client(settings(CACHE_REDIS_HOST="127.0.0.1", CACHE_REDIS_PORT="1")) as client:
        for ask in (lambda: Reservations(client).reserve("wf", "ex", ["a"], 60), Reservations(client).release_expired):
            with pytest.raises(StateStoreError, match="CACHE_REDIS"):
                ask()
