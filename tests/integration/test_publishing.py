"""Publishing on connections that were cut, swallowed or refused: an error within ten seconds, and no message lost."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from kombu.connection import Connection
from kombu.exceptions import OperationalError

from sandbox.stack import wait_for
from shared.call import Call, WorkerApp
from shared.celery_app import build_app
from shared.deadline import Deadline
from shared.delays import send_later
from shared.errors import BrokerError
from shared.execution_state import ExecutionState
from shared.redis_connection import redis_client
from tests.fakes import one_worker, settings
from tests.proxy import Proxy, proxied

QUEUE = "published"
MOST_SECONDS = 10.0
BASIC_ACK = b"\x00\x3c\x00\x50"  # class 60, method 80
Broken = Callable[[Proxy], None]


class Publisher:
    """A worker's application, and its broker behind a proxy."""

    def __init__(self, url: str, between: Proxy) -> None:
        self.url, self.between = url, between
        through = settings(CELERY_BROKER_URL=between.url)
        self.app: WorkerApp = build_app(one_worker("publisher", "callback.tasks", QUEUE), through)
        soon = Deadline.after(60, "the test")
        self._call = Call(self.app, "test", "id", QUEUE, {}, slice=soon, deadline=soon)

    def send(self) -> float:
        """Publish one message, whatever comes of it; the seconds it took."""
        begun = time.monotonic()
        try:
            self._call.send("some.task", QUEUE, [1])
        finally:
            self.seconds = time.monotonic() - begun
        return self.seconds

    def close(self) -> None:
        """Close its connections."""
        self.between.down()
        self.app.pool.force_close_all()
        self.app.close()

    def arrived(self) -> int:
        """How many messages the broker has."""
        with Connection(self.url) as connection, connection.channel() as channel:
            return int(channel.queue_declare(QUEUE, passive=True).message_count)


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.matrix), "rabbitmq"])
def publisher(request: pytest.FixtureRequest) -> Iterator[Publisher]:
    url: str = request.getfixturevalue(f"{request.param}_url")
    with ExitStack() as held:
        one = Publisher(url, held.enter_context(proxied(url)))
        yield one
        one.close()
        with Connection(url) as connection, connection.channel() as channel:
            if request.param == "redis":
                channel.queue_purge(QUEUE)  # nobody has bound it there, so that deleting it does nothing
            channel.queue_delete(QUEUE)


def test_an_idle_connection_that_was_closed_costs_nothing(publisher: Publisher) -> None:
    """Fault 31: the first publish afterwards succeeds, and is done once."""
    for count in range(1, 4):
        assert publisher.send() < 3
        publisher.between.cut()
        wait_for(lambda expected=count: publisher.arrived() == expected, 5, "the message")  # type: ignore[misc]


def test_an_idle_connection_that_is_dropped_in_silence_costs_seconds(publisher: Publisher) -> None:
    publisher.send()
    publisher.between.swallow(deaf=True, mute=True)
    assert publisher.send() < MOST_SECONDS
    wait_for(lambda: publisher.arrived() == 2, 5, "the message")


def test_a_lost_confirmation_is_at_least_once(publisher: Publisher) -> None:
    """Fault 17: the broker has the message and could not say so; who sends again cannot know."""
    publisher.send()
    publisher.between.swallow(deaf=False, mute=True)
    assert publisher.send() < MOST_SECONDS
    wait_for(lambda: publisher.arrived() == 3, 5, "the message, and its double")


@pytest.mark.parametrize("warm", [True, False], ids=["connected", "unconnected"])
@pytest.mark.parametrize("broken", [Proxy.down, Proxy.swallow_everything], ids=["down", "silent"])
def test_a_broker_that_is_away_is_an_error_within_ten_seconds(publisher: Publisher, broken: Broken, warm: bool) -> None:
    """Fault 34."""
    if warm:
        publisher.send()
    broken(publisher.between)
    with pytest.raises(BrokerError):
        publisher.send()
    assert publisher.seconds < MOST_SECONDS


def test_a_connection_that_is_lost_and_found_while_a_queue_is_declared_loses_no_message(redis_url: str) -> None:
    """Kombu goes on with the channel of the lost one, and fails with what is no error of a broker."""
    with proxied(redis_url) as between:
        publisher = Publisher(redis_url, between)
        queues = [f"published_{number}" for number in range(8)]
        publisher.send()
        taken = []
        for number, queue in enumerate(queues):
            between.down()
            back = threading.Timer(0.05 * number, between.up)
            back.start()
            with suppress(BrokerError):
                publisher._call.send("some.task", queue, [1])
                taken.append(queue)
            back.join()
        publisher.close()
    with Connection(redis_url) as connection, connection.channel() as channel:
        arrived = {queue: channel.queue_purge(queue) for queue in [*queues, QUEUE]}
    assert arrived == {queue: int(queue in {*taken, QUEUE}) for queue in [*queues, QUEUE]}
    assert len(taken) > 1


def test_a_broker_that_confirms_nothing_is_an_error_within_ten_seconds(rabbitmq_url: str) -> None:
    """RabbitMQ in alarm: it takes connections and answers questions, and leaves unread what is published."""
    with proxied(rabbitmq_url) as between:
        between.dropped = BASIC_ACK
        publisher = Publisher(rabbitmq_url, between)
        with pytest.raises(BrokerError):
            publisher.send()
        assert 3 < publisher.seconds < MOST_SECONDS
        publisher.close()
    with Connection(rabbitmq_url) as connection, connection.channel() as channel:
        channel.queue_delete(QUEUE)


@pytest.mark.matrix  # tests/acceptance/test_brokers.py has a retry that waits
def test_a_delay_queue_hands_on_and_is_bounded(rabbitmq_url: str) -> None:
    with proxied(rabbitmq_url) as between:
        publisher = Publisher(rabbitmq_url, between)
        publisher.send()
        again = publisher.app.signature("some.task", args=[2], headers={"place": 3}, task_id="the-task")
        send_later(again, QUEUE, 0.7, publisher.app.resources.settings)
        wait_for(lambda: publisher.arrived() == 2, 5, "the delayed message")
        between.swallow_everything()
        begun = time.monotonic()
        with pytest.raises((OSError, OperationalError)):
            send_later(again, QUEUE, 0.7, publisher.app.resources.settings)
        assert time.monotonic() - begun < MOST_SECONDS
        publisher.close()
        with Connection(rabbitmq_url) as connection, connection.channel() as channel:
            channel.queue_delete("workers_delay_published_1")
            channel.queue_delete(QUEUE)


def test_an_idle_connection_to_the_state_store_that_was_cut_costs_nothing(redis_url: str) -> None:
    with proxied(redis_url) as between:
        secret = redis_url.rpartition("@")[0].rpartition(":")[2]
        variables = {"CACHE_REDIS_HOST": "127.0.0.1", "CACHE_REDIS_PORT": str(between.port)}
        client = redis_client(settings(**variables, CACHE_REDIS_PASSWORD=secret))
        state = ExecutionState(client, 60, 60)
        for _ in range(3):
            state.fail("ex", "why")
            between.cut()
        assert state.known("ex").failure == ("why", 0)
        state.forget("ex")
        client.close()
