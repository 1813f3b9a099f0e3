"""Queues of real brokers, looked at and left as they are."""

import json
from typing import Any

import pytest
import redis
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.transport.redis import Channel

from monitoring.fleet import Executions
from monitoring.prometheus_metrics import (
    BEAT_TICK,
    EXECUTIONS_OPEN,
    EXECUTIONS_OVERDUE,
    QUEUE_CONSUMERS,
    QUEUE_LENGTH,
    QUEUE_STANDSTILL,
    QUEUE_UNACKNOWLEDGED,
)
from monitoring.queue_exporter import Standstill
from monitoring.rabbitmq import RabbitMQ
from monitoring.redis_queues import RedisQueues
from tests.proxy import proxied
from tests.unit.test_queue_exporter import Clock

NAMES = ("celery", "scheduler")


def declared(channel: Any, name: str = "celery") -> Queue:
    queue = Queue(name, Exchange(name, "direct"), name, channel=channel)
    queue.declare()
    return queue


def publish(connection: Connection, body: str, name: str = "celery", priority: int = 0) -> None:
    with connection.Producer() as producer:
        producer.publish({"body": body}, exchange=name, routing_key=name, priority=priority, declare=[])


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_queues_of_a_redis_broker_with_their_priorities_and_what_is_in_hand(
    redis_url: str, redis_connection: "redis.Redis", clock: Clock
) -> None:
    source = RedisQueues(redis_connection, NAMES, Standstill(clock))
    assert source()[QUEUE_LENGTH] == {("celery",): 0, ("scheduler",): 0}
    with Connection(redis_url) as connection, connection.channel() as channel:
        declared(channel)
        for at in range(4):
            publish(connection, str(at), priority=at % 2 * 6)
        held = [channel.basic_get("celery")]
        clock.now += 30
        before = dict(sorted((key, redis_connection.dump(key)) for key in redis_connection.keys("celery*")))
        found = source()
        assert found[QUEUE_LENGTH] == {("celery",): 3, ("scheduler",): 0}
        assert found[QUEUE_UNACKNOWLEDGED] == {("celery",): 1, ("scheduler",): 0}
        assert found[QUEUE_STANDSTILL] == {("celery",): 30, ("scheduler",): 0}
        assert before == dict(sorted((key, redis_connection.dump(key)) for key in redis_connection.keys("celery*")))
        clock.now += 10
        publish(connection, "more")  # what comes is no movement
        assert source()[QUEUE_STANDSTILL]["celery",] == 40
        held.append(channel.basic_get("celery"))
        publish(connection, "as many as before")
        found = source()
        assert found[QUEUE_LENGTH]["celery",] == 4
        assert found[QUEUE_STANDSTILL]["celery",] == 0
        for message in held:
            channel.basic_ack(message.delivery_tag)
        assert source()[QUEUE_UNACKNOWLEDGED]["celery",] == 0


def test_of_too_many_messages_in_hand_it_is_not_said_whose_they_are(redis_connection: "redis.Redis") -> None:
    source = RedisQueues(redis_connection, NAMES, Standstill())
    kept = {str(tag): json.dumps([{}, "celery", "celery"]) for tag in range(10_000)}
    redis_connection.hset(Channel.unacked_key, mapping=kept)  # type: ignore[arg-type]
    assert source()[QUEUE_UNACKNOWLEDGED]["celery",] == 10_000
    redis_connection.hset(Channel.unacked_key, "one more", "anything")
    found = source()
    assert found[QUEUE_UNACKNOWLEDGED] == {}
    assert found[QUEUE_LENGTH]["celery",] == 0


def test_the_queues_of_rabbitmq_that_exist(rabbitmq_url: str, clock: Clock) -> None:
    source = RabbitMQ(lambda: Connection(rabbitmq_url), NAMES, Standstill(clock), clock)
    with Connection(rabbitmq_url) as connection, connection.channel() as channel:
        queue = declared(channel)
        for at in range(3):
            publish(connection, str(at))
        assert source()[QUEUE_LENGTH] == {("celery",): 3}
        clock.now += 30
        found = source()
        assert found[QUEUE_CONSUMERS] == {("celery",): 0}
        assert found[QUEUE_STANDSTILL] == {("celery",): 30}
        assert queue.queue_declare(passive=True).message_count == 3
        channel.basic_get("celery", no_ack=True)
        assert source()[QUEUE_STANDSTILL] == {("celery",): 0}
        # One that did not exist is looked for again after a minute.
        declared(channel, "scheduler")
        assert ("scheduler",) not in source()[QUEUE_LENGTH]
        clock.now += 60
        assert source()[QUEUE_LENGTH] == {("celery",): 2, ("scheduler",): 0}
        queue.delete()
        found = source()
        assert found[QUEUE_LENGTH] == {("scheduler",): 0}
        assert found[QUEUE_STANDSTILL] == {("scheduler",): 0}
    source.close()


def test_a_rabbitmq_that_is_away_is_an_error_and_then_connected_to_again(rabbitmq_url: str) -> None:
    with proxied(rabbitmq_url) as between, Connection(rabbitmq_url) as connection, connection.channel() as channel:
        declared(channel)
        source = RabbitMQ(lambda: Connection(between.url, connect_timeout=2), NAMES, Standstill())
        assert source()[QUEUE_LENGTH] == {("celery",): 0}
        between.down()
        for _ in range(2):
            with pytest.raises(OSError, match=r"\w"):
                source()
        between.up()
        declared(channel, "scheduler")  # what was missing is looked for at once on a new connection
        assert source()[QUEUE_LENGTH] == {("celery",): 0, ("scheduler",): 0}
        source.close()


def test_open_and_overdue_executions_and_the_scheduler_s_last_look(redis_connection: "redis.Redis") -> None:
    source = Executions(redis_connection, "register", "tick", lambda: 10_000.0)
    assert source() == {EXECUTIONS_OPEN: {(): 0}, EXECUTIONS_OVERDUE: {(): 0}}
    redis_connection.zadd("register", {"late": 9_699, "due": 9_701, "later": 10_500})
    redis_connection.set("tick", 9_999.5)
    found = source()
    assert found[EXECUTIONS_OPEN] == {(): 3}
    assert found[EXECUTIONS_OVERDUE] == {(): 1}
    assert found[BEAT_TICK] == {(): 9_999.5}
