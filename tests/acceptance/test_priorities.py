"""Low queues that hold more than their process can do at once: what is urgent starts within a second all the same."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from sandbox.stack import wait_for
from tests.acceptance.probes import Event, Probes, probes
from tests.proxy import Proxy, proxied

pytestmark = pytest.mark.timeout(120)

matrix = pytest.mark.matrix
LOW = ("probe_low", "probe_low_too")
SLOTS, MOST = 6, 2  # of each low queue at once: two slots are left
EACH, SECONDS = 8, 1.5


@contextmanager
def loaded(url: str | None, *options: str, **settings: str) -> Iterator[tuple[Probes, Proxy, dict[str, str]]]:
    """A worker behind a proxy whose low queues are full, and the queue of each low task."""
    with probes(url, **settings) as world, proxied(world.stack.broker_url) as between:
        world.start("one", *options, broker_url=between.url, PROBE_PROFILE="probe_all")
        sent = {
            task_id: queue for queue in LOW for task_id in world.send_many(EACH, "probe.work", SECONDS, queue=queue)
        }
        world.await_events("began", MOST * len(LOW), 10)
        yield world, between, sent


def start_of_urgent_task(world: Probes) -> float:
    """Seconds after which it began."""
    sent = time.time()
    (began,) = world.await_events("began", 1, 10, world.send("probe.work", 0.0))
    return began.at - sent


def most_at_once(events: list[Event], queues: Mapping[str, str]) -> dict[str, int]:
    """How many tasks of each queue ran at the same time at the most."""
    running, most = dict.fromkeys(LOW, 0), dict.fromkeys(LOW, 0)
    for event in sorted(events, key=lambda event: event.at):
        if event.task_id in queues:
            queue = queues[event.task_id]
            running[queue] += 1 if event.what == "began" else -1
            most[queue] = max(most[queue], running[queue])
    return most


@pytest.mark.parametrize(
    ("broker", "queue_type", "options"),
    [
        ("rabbitmq", "classic", ()),
        ("redis", "classic", ()),
        pytest.param("rabbitmq", "quorum", (), marks=matrix),
        pytest.param("rabbitmq", "classic", ("--pool", "prefork"), marks=matrix),
        pytest.param("rabbitmq", "quorum", ("--pool", "prefork"), marks=matrix),
        pytest.param("redis", "classic", ("--pool", "prefork"), marks=matrix),
        pytest.param("rabbitmq", "classic", ("worker.prefetch_multiplier=4",), marks=matrix),
        pytest.param("rabbitmq", "quorum", ("worker.prefetch_multiplier=4",), marks=matrix),
        pytest.param("redis", "classic", ("worker.prefetch_multiplier=4",), marks=matrix),
        pytest.param("redis", "classic", ("worker.prefetch_multiplier=4", "--pool", "prefork"), marks=matrix),
        pytest.param("rabbitmq", "classic", ("worker.prefetch_multiplier=4", "--pool", "prefork"), marks=matrix),
    ],
)
def test_an_urgent_task_starts_within_a_second_whatever_low_queues_hold(
    request: pytest.FixtureRequest, broker: str, queue_type: str, options: tuple[str, ...]
) -> None:
    """Before and after a lost connection, whose messages come again while the process still works on them."""
    url = request.getfixturevalue("rabbitmq_url") if broker == "rabbitmq" else None
    with loaded(url, "--concurrency", str(SLOTS), *options, CELERY_QUEUE_TYPE=queue_type) as (world, between, queues):
        assert max(start_of_urgent_task(world) for _ in range(3)) < 1
        assert between.cut()
        start_of_urgent_task(world)  # it waits for the new connection
        assert max(start_of_urgent_task(world) for _ in range(3)) < 1
        wait_for(lambda: queues.keys() <= {event.task_id for event in world.events("ended")}, 40, "all of them")
        assert most_at_once(world.events(), queues) == dict.fromkeys(LOW, MOST)
