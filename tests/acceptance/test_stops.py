"""How a worker ends: told to, wedged, killed; as threads and as processes; and nothing is lost by it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from sandbox.stack import alive, wait_for
from tests.acceptance.probes import Probes, gone, probes

pytestmark = pytest.mark.timeout(180)

DRAIN = 3.0
matrix = pytest.mark.matrix


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., Probes]]:
    with ExitStack() as held:

        def begin(broker: str, **settings: str) -> Probes:
            url = request.getfixturevalue("rabbitmq_url") if broker == "rabbitmq" else None
            return held.enter_context(probes(url, **{"DRAIN_SECONDS": str(DRAIN)} | settings))

        yield begin


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


@pytest.mark.parametrize(
    ("broker", "pool"),
    [
        ("redis", "threads"),
        ("rabbitmq", "prefork"),
        pytest.param("redis", "prefork", marks=matrix),
        pytest.param("rabbitmq", "threads", marks=matrix),
    ],
)
def test_a_wedged_worker_ends_when_its_time_is_over_and_another_has_its_work(
    start: Callable[..., Probes], broker: str, pool: str
) -> None:
    """Faults 14 and 41: two wedged slots, one deadline; a second SIGTERM and a SIGQUIT change nothing."""
    world = start(broker)
    first = world.start("first", "--pool", pool, "--concurrency", "2")
    sent = {world.send("probe.wedge", 30.0), world.send("probe.wedge", 30.0)}
    world.await_events("began", 2, 10)
    below = children(first.pid)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGQUIT):
        os.kill(first.pid, number)
    assert gone(first, world.stack, DRAIN + 2.5) >= DRAIN - 0.5
    wait_for(lambda: not any(map(alive, below)), 1, "the children to end")
    (forced,) = world.log(first, "stop_forced")
    assert {running["task_id"] for running in forced["still_running"]} == sent
    assert {running["task"] for running in forced["still_running"]} == {"probe.wedge"}
    world.start("second", "--pool", pool, "--concurrency", "2")
    began = world.await_events("began", 4, 10)
    assert {event.task_id for event in began[2:]} == sent


@pytest.mark.parametrize(
    ("broker", "options"),
    [
        ("rabbitmq", ["--pool", "prefork"]),
        pytest.param("redis", ["--pool", "prefork"], marks=matrix),
        pytest.param("rabbitmq", ["--pool", "prefork", "worker.pool_start_method=spawn"], marks=matrix),
        pytest.param("redis", ["--pool", "threads"], marks=matrix),
    ],
)
def test_a_stop_of_the_whole_process_group_hands_work_back(
    start: Callable[..., Probes], broker: str, options: list[str]
) -> None:
    """Fault 13: children hear of a stop, and nothing ends them in the middle."""
    world = start(broker)
    first = world.start("first", "--concurrency", "2", *options)
    sent = {world.send("probe.work", 20.0), world.send("probe.work", 20.0)}
    world.await_events("began", 2, 10)
    os.killpg(first.pid, signal.SIGTERM)
    assert gone(first, world.stack, DRAIN + 2) < DRAIN
    assert {event.task_id for event in world.events("handed")} == sent
    assert not world.log(first, "stop_forced")
    world.start("second", "--concurrency", "2", *options)
    assert {event.task_id for event in world.await_events("began", 4, 10)[2:]} == sent


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=matrix)])
def test_children_end_with_a_killed_main_process(start: Callable[..., Probes], method: str) -> None:
    world = start("redis")
    part = world.start("first", "--pool", "prefork", "--concurrency", "2", f"worker.pool_start_method={method}")
    world.send("probe.wedge", 30.0)
    world.await_events("began", 1, 10)
    below = children(part.pid)
    assert len(below) >= 2
    os.kill(part.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, below)), 2, "the children to end")
    del world.stack.parts["first"]


def test_every_child_has_connections_of_its_own(start: Callable[..., Probes]) -> None:
    """Fault 33."""
    world = start("redis")
    part = world.start("first", "--pool", "prefork", "--concurrency", "4")
    for _ in range(50):
        world.send("probe.sockets")
    said = world.await_events("socket", 50, 30)
    ports = {event.pid: set[str]() for event in said}
    for event in said:
        ports[event.pid].add(event.more)
    assert len(ports) == 4
    assert sum(map(len, ports.values())) == len(set.union(*ports.values()))
    assert "signal 11" not in Path(part.log).read_text()
