"""A worker's memory stays what it was, however many tasks fail in it."""

from collections.abc import Callable

import psutil
import pytest
import redis
from celery import Celery

from config.queue_routing import DEAD_LETTERS
from sandbox.stack import Stack, wait_for
from tests.acceptance.conftest import Fleet

pytestmark = pytest.mark.timeout(600)

QUEUE = "api_file_processing_callback"
MEGABYTE = 1_048_576


def fail(stack: Stack, first: int, count: int) -> float:
    """Have so many callbacks fail, each with a lease of its own. The worker's megabytes afterwards."""
    with Celery(broker=stack.broker_url, fixups=[], set_as_current=False) as publisher, publisher.pool.acquire() as on:
        producer = publisher.amqp.Producer(on)
        for number in range(first, first + count):
            # Nobody says whose it is: refused by its model, and kept for people.
            named = {"execution_id": f"ex-{number}"}
            publisher.send_task("process_batch_callback_api", args=[[]], kwargs=named, queue=QUEUE, producer=producer)
    with redis.Redis.from_url(stack.redis_url) as broker:
        wait_for(lambda: broker.llen(DEAD_LETTERS) == first + count, 500, "the last failure")
    return psutil.Process(stack.parts["callback"].pid).memory_info().rss / MEGABYTE


# Few at first: threads and connections are there after some dozens, and failures may leave nothing behind.
@pytest.mark.parametrize(("first", "count"), [(60, 1_000), pytest.param(3_000, 20_000, marks=pytest.mark.matrix)])
def test_memory_is_flat_over_thousands_of_failing_tasks(
    start_fleet: Callable[..., Fleet], first: int, count: int
) -> None:
    stack, _ = start_fleet("callback")
    before = fail(stack, 0, first)
    after = fail(stack, first, count)
    assert after - before < 5


def test_processes_of_a_pool_share_what_was_there_before_them(start_fleet: Callable[..., Fleet]) -> None:
    stack, _ = start_fleet("file_processing", CELERY_POOL="prefork", CELERY_CONCURRENCY="4")
    main = psutil.Process(stack.parts["file_processing"].pid)
    held = [process.memory_full_info() for process in (main, *main.children())]
    assert len(held) == 5
    # Without it, more than half: the first collection in a child copies every page that has an object on it.
    assert sum(one.pss for one in held) < 0.4 * sum(one.rss for one in held)
