"""Low queues that hold more than their process can do at once: what is urgent starts within a second all the same."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from sandbox.driver import Driver
from sandbox.stack import Stack, wait_for
from tests.acceptance.probes import Event, Probes, probes
from tests.acceptance.test_executions import documents, events
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
        with Celery(broker=between.url, fixups=[], set_as_current=False) as operator:
            (stats,) = (operator.control.inspect(timeout=1).stats() or {}).values()
            assert stats["broker"]["transport"] in {"amqp", "redis"}
        assert between.cut()
        start_of_urgent_task(world)  # it waits for the new connection
        assert max(start_of_urgent_task(world) for _ in range(3)) < 1
        wait_for(lambda: queues.keys() <= {event.task_id for event in world.events("ended")}, 40, "all of them")
        assert most_at_once(world.events(), queues) == dict.fromkeys(LOW, MOST)


FILES, FILE_SECONDS = 500, 10.0


@contextmanager
def flooded(url: str | None, folder: Path, *profiles: str) -> Iterator[tuple[Stack, Driver]]:
    """Half of the files in each low queue, as many of them at work as there are slots for."""
    with Stack(url) as stack:
        stack.start_redis()
        stack.start_backend(SANDBOX_TOOL_WORKERS="64", SANDBOX_TOOL_QUEUE=str(FILES), SANDBOX_THREADS="64")
        stack.start_workers(*profiles)
        stack.wait_until_ready()
        with Driver(stack) as driver:
            driver.control("PUT", "switches", {"tool": "echo", "tool_seconds": FILE_SECONDS})
            sent = documents(folder, FILES // 2)
            flood = {"name": "flood", "source_folder": str(folder), "destination_table": "flood"}
            wanted = {"organization": "flood", "workflow_type": "ETL", "max_parallel_file_batches": 100, **flood}
            driver.start_pipeline(driver.control("POST", "setup/", wanted))
            driver.post(driver.deploy("flood", batches=100), sent)
            wait_for(lambda: begun(driver) >= slots_for_files(profiles), 60, "a flood")
            yield stack, driver


def slots_for_files(profiles: Sequence[str]) -> int:
    """Files at once: the low limit of the one process, or the processes of the other."""
    return 32 if "all" in profiles else 2


def begun(driver: Driver) -> int:
    """Files that the tools were asked for."""
    return int(driver.control("GET", "stats")["tool_runs"]["total"])


def starts(stack: Stack, driver: Driver, folder: Path, *profiles: str) -> dict[str, list[float]]:
    """Seconds from what a user does to the start of the task for it, in turn, until other files have all the slots."""
    small = driver.deploy("small", batches=1)
    document = documents(folder, 1)
    hook = {"url": f"{stack.backend_url}/sandbox/hooks/urgent/", "payload": {"text": "urgent"}}
    kinds: dict[str, Callable[[], Any]] = {
        "async_execute_bin": lambda: driver.post(small, document),
        "send_webhook_notification": lambda: driver.internal("POST", "v1/webhook/send/", small.organization_id, hook),
    }

    def ended(task: str) -> list[dict[str, Any]]:
        return [end for end in events(stack, profiles[0], "task_ended") if end["task"].startswith(task)]

    found: dict[str, list[float]] = {task: [] for task in kinds}
    while begun(driver) < 2 * slots_for_files(profiles):
        for task, act in kinds.items():
            before, at = len(ended(task)), time.time()
            act()
            wait_for(lambda task=task, before=before: len(ended(task)) > before, 60, task)  # type: ignore[misc]
            last = ended(task)[-1]
            found[task].append(datetime.fromisoformat(last["timestamp"]).timestamp() - last["seconds"] - at)
    return found


@matrix
@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
@pytest.mark.parametrize("profiles", [("fast", "slow"), ("all",)], ids="-".join)
def test_five_hundred_files_of_ten_seconds_hold_up_nobody(
    request: pytest.FixtureRequest, tmp_path: Path, broker: str, profiles: tuple[str, ...]
) -> None:
    """The start of an API deployment's execution, and of a webhook."""
    url = request.getfixturevalue("rabbitmq_url") if broker == "rabbitmq" else None
    for name in ("flood", "small"):
        (tmp_path / name).mkdir()
    with flooded(url, tmp_path / "flood", *profiles) as (stack, driver):
        found = starts(stack, driver, tmp_path / "small", *profiles)
        assert max(max(seconds) for seconds in found.values()) < 1, found
