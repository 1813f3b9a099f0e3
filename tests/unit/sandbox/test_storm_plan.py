"""What a storm does is known from its seed."""

from collections import Counter

import pytest

from sandbox.storm.plan import LEASE_SECONDS, WORKER_SETTINGS, plan
from tests.fakes import settings

WORKERS = ("api_deployment", "general", "file_processing", "callback", "file_processing-2")


def test_a_seed_is_a_storm() -> None:
    assert plan(7, 3, WORKERS) == plan(7, 3, WORKERS)
    assert plan(7, 3, WORKERS) != plan(8, 3, WORKERS)


@pytest.mark.parametrize("minutes", [0.1, 0.5, 1, 2.5])
def test_blows_come_in_their_order_and_within_the_storm(minutes: float) -> None:
    blows = plan(1, minutes, WORKERS)
    assert blows == sorted(blows)
    assert 0 <= blows[0].at <= blows[-1].at <= minutes * 60


def test_a_minute_has_everything_for_everyone() -> None:
    done = Counter((blow.kind, blow.part) for blow in plan(3, 1, WORKERS))
    assert {(kind, part) for kind in ("kill", "stop", "end") for part in WORKERS} <= done.keys()
    assert (done["kill", "backend"], done["kill", "broker"], done["kill", "redis"]) == (1, 2, 2)


def test_a_long_storm_kills_the_backend_each_minute_for_longer() -> None:
    deaths = [blow for blow in plan(3, 4, WORKERS) if blow.part == "backend"]
    assert [int(blow.at // 60) for blow in deaths] == [0, 1, 2, 3]
    assert {blow.seconds for blow in deaths} == {20.0}


def test_a_worker_stands_still_for_longer_than_its_lease_now_and_then() -> None:
    still = [blow.seconds for blow in plan(3, 10, WORKERS) if blow.kind == "stop"]
    assert LEASE_SECONDS < max(still) <= 2 * LEASE_SECONDS


@pytest.mark.parametrize("broker", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1//"])
def test_its_workers_accept_its_settings(broker: str) -> None:
    """And the visibility timeout is the least that they accept."""
    found = settings(**WORKER_SETTINGS, CELERY_BROKER_URL=broker)
    assert found.visibility - 1 < found.batch_slice + found.backend_timeout + found.drain
