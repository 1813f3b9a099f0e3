"""Leases over both citizens of the state store's border: one owner at a time, whatever dies, freezes or comes twice."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sandbox.stack import wait_for
from shared.claims import Claim, Claims, Held, Lease, LeaseLost, renew_all
from shared.errors import StateStoreError
from shared.execution_state import ExecutionState
from shared.redis_connection import redis_client
from tests.fakes import memory, settings

WORK = Claim("workers:execution:ex", "batch:0", 100)
OTHER = Claim("workers:execution:ex", "batch:1", 100)
SECONDS = 0.6
Process = Callable[[], Claims]


class Unrenewing(Claims):
    """A process that is frozen, as far as others can see: its leases are not renewed."""

    def _renew_always(self) -> None:
        return


@pytest.fixture(params=["redis", "memory"])
def client(request: pytest.FixtureRequest) -> Any:
    return memory() if request.param == "memory" else request.getfixturevalue("redis_connection")


@pytest.fixture
def process(client: Any) -> Iterator[Process]:
    """Another process, as far as leases go."""
    made: list[Claims] = []

    def make() -> Claims:
        made.append(Claims(client, SECONDS))
        return made[-1]

    yield make
    for claims in made:
        claims.close()


@pytest.fixture
def frozen(client: Any) -> Claims:
    return Unrenewing(client, SECONDS)


def taken(claims: Claims, work: Claim = WORK) -> Lease:
    lease = claims.take(work)
    assert isinstance(lease, Lease), lease
    return lease


def test_a_piece_of_work_has_one_owner_and_others_hear_for_how_long(process: Process) -> None:
    first, second = process(), process()
    taken(first)
    held = second.take(WORK)
    assert isinstance(held, Held)
    assert 0 < held.seconds <= SECONDS
    assert isinstance(second.take(OTHER), Lease)
    # Not even another thread of its own process: a lease belongs to a delivery.
    assert isinstance(first.take(WORK), Held)


def test_of_many_who_ask_at_once_one_gets_it(process: Process) -> None:
    claims = [process() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda one: one.take(WORK), claims))
    assert sum(isinstance(one, Lease) for one in got) == 1


def test_a_lease_outlasts_its_seconds_while_its_owner_works(process: Process) -> None:
    first, second = process(), process()
    lease = taken(first)
    until = time.monotonic() + 3 * SECONDS
    while time.monotonic() < until:
        assert isinstance(second.take(WORK), Held)
        lease.check()
        time.sleep(0.05)
    assert second.alive(WORK)


def test_a_dead_owners_lease_ends_and_the_next_takes_the_work(process: Process, frozen: Claims) -> None:
    lease, next_one = taken(frozen), process()
    wait_for(lambda: not next_one.alive(WORK), 5 * SECONDS, "the end of the lease")
    assert taken(next_one).deliveries == 2
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_frozen_process_finds_out_by_its_own_clock(frozen: Claims) -> None:
    """Nobody told it anything: it has not asked for longer than its lease lasts."""
    lease = taken(frozen)
    lease.check()
    lease.renewed -= SECONDS + 0.01
    with pytest.raises(LeaseLost, match="batch:0"):
        lease.check()


def test_a_lease_that_another_has_is_lost_though_it_was_renewed_in_time(process: Process) -> None:
    claims, thief = process(), process()
    lease = taken(claims)
    claims._redis.hdel(WORK.keys[0], WORK.what)
    taken(thief)
    wait_for(lambda: lease.lost, 5 * SECONDS, "the next renewal")
    with pytest.raises(LeaseLost):
        lease.check()


def test_who_is_no_owner_any_more_releases_and_finishes_nothing(process: Process, frozen: Claims) -> None:
    late, current = taken(frozen), process()
    wait_for(lambda: not current.alive(WORK), 5 * SECONDS, "the end of the lease")
    lease = taken(current)
    frozen.release(late)
    frozen.finish(late)
    frozen.progressed(late)
    assert current.alive(WORK)
    assert isinstance(process().take(WORK), Held)
    lease.check()
    current.release(lease)
    assert taken(process()).deliveries == 1


def test_what_is_done_stays_done(process: Process) -> None:
    first, second = process(), process()
    first.finish(taken(first))
    assert first.take(WORK) is None
    assert second.take(WORK) is None
    assert not second.alive(WORK)
    assert isinstance(second.take(OTHER), Lease)


def test_of_a_scope_that_has_ended_nothing_is_taken_and_nothing_is_written(process: Process, client: Any) -> None:
    claims = process()
    lease = taken(claims)
    ExecutionState(client, 100, 10).forget("ex")
    claims.finish(lease)
    assert claims.take(WORK) is None
    assert set(client.keys()) == {"workers:execution:ex:ended"}


def test_deliveries_are_counted_until_one_gets_on_with_the_work(process: Process, client: Any) -> None:
    for expected in (1, 2, 3):
        dying = Unrenewing(client, 0.05)
        assert taken(dying).deliveries == expected
        wait_for(lambda owner=dying: not owner.alive(WORK), 5, "the end of the lease")  # type: ignore[misc]
    claims = process()
    lease = taken(claims)
    assert lease.deliveries == 4
    claims.progressed(lease)
    claims.progressed(lease)
    assert lease.deliveries == 0
    client.hdel(WORK.keys[0], WORK.what)  # it dies, too
    assert taken(process()).deliveries == 1


def test_an_orderly_release_counts_no_death(process: Process) -> None:
    claims = process()
    for _ in range(3):
        lease = taken(claims)
        assert lease.deliveries == 1
        claims.release(lease)


def test_every_lease_ends_with_its_scope(process: Process, client: Any) -> None:
    claims = process()
    taken(claims)
    assert 0 < client.ttl(WORK.keys[0]) <= WORK.expiry
    claims.finish(taken(claims, OTHER))
    assert 0 < client.ttl(WORK.keys[0]) <= WORK.expiry


def test_a_closed_process_renews_no_more(process: Process) -> None:
    claims, next_one = process(), process()
    taken(claims)
    claims.close()
    wait_for(lambda: isinstance(next_one.take(WORK), Lease), 5 * SECONDS, "the end of the lease")


def test_one_lease_that_cannot_be_asked_about_does_not_keep_the_others_from_being_renewed() -> None:
    first, second, third = (Lease(WORK, 1, 10, 0.0) for _ in range(3))

    def renew(lease: Lease) -> bool:
        if lease is first:
            raise StateStoreError("away")
        return lease is second

    renew_all([first, second, third], renew)
    assert (first.renewed, first.lost) == (0.0, False)
    assert second.renewed > 0
    assert third.lost
    with pytest.raises(LeaseLost):
        first.check()


def test_an_absent_store_is_a_typed_error_and_nobody_gets_a_lease() -> None:
    client = redis_client(settings(CACHE_REDIS_HOST="127.0.0.1", CACHE_REDIS_PORT="1"))
    claims = Claims(client, SECONDS)
    for ask in (claims.take, claims.alive):
        with pytest.raises(StateStoreError, match="CACHE_REDIS"):
            ask(WORK)
    client.close()
