"""The stack's servers and its switches: what a storm stands on."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty
from urllib.parse import urlsplit

import psutil
import pytest
import redis
from kombu.connection import Connection

from sandbox import servers
from sandbox.stack import Stack, StackError, alive, listens, wait_for
from tests.conftest import without


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture
def rabbitmq(stack: Stack) -> Stack:
    """A stack with a RabbitMQ of its own that is up."""
    if servers.rabbitmq_program() is None:
        without("RabbitMQ is not installed")
    stack.start_rabbitmq()
    stack.wait_until_ready()
    return stack


def publish(url: str, text: str) -> None:
    with (
        Connection(url, transport_options={"confirm_publish": True}) as connection,
        connection.SimpleQueue("kept") as kept,
    ):
        kept.put(text)


def taken(url: str) -> list[str]:
    found = []
    with Connection(url) as connection, connection.SimpleQueue("kept") as kept, suppress(Empty):
        while True:
            message = kept.get(timeout=1)
            message.ack()
            found.append(message.payload)
    return found


@pytest.mark.matrix
def test_a_message_outlives_the_death_of_rabbitmq(rabbitmq: Stack) -> None:
    publish(rabbitmq.broker_url, "still here")
    before = rabbitmq.parts["broker"].pid
    rabbitmq.kill("broker")
    wait_for(lambda: not rabbitmq.alive("broker"), 5, "the node to end")
    assert not listens("127.0.0.1", urlsplit(rabbitmq.broker_url).port or 0)
    rabbitmq.restart("broker")
    rabbitmq.wait_until_ready()
    assert rabbitmq.parts["broker"].pid != before
    assert taken(rabbitmq.broker_url) == ["still here"]


@pytest.mark.matrix
def test_rabbitmq_listens_on_loopback_alone_and_ends_when_it_is_told_to(rabbitmq: Stack) -> None:
    publish(rabbitmq.broker_url, "still here")
    parts = [psutil.Process(rabbitmq.parts[name].pid) for name in ("broker", "epmd")]
    addresses = {listening.laddr.ip for part in parts for listening in part.net_connections() if listening.laddr}
    assert addresses <= {"127.0.0.1", "::1"}
    group = {process.pid for process in psutil.Process(rabbitmq.parts["broker"].pid).children(recursive=True)}
    group |= {part.pid for part in rabbitmq.parts.values()}
    begun = time.monotonic()
    rabbitmq.stop_and_wait("broker")
    assert time.monotonic() - begun < 10
    rabbitmq.close()
    wait_for(lambda: not any(map(alive, group)), 5, "all of it to end")
    assert not rabbitmq.folder.exists()


def test_without_rabbitmq_the_stack_says_what_to_install(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StackError, match="apt-get install rabbitmq-server"):
        stack.start_rabbitmq()


def test_broker_and_state_store_die_apart_and_keep_what_they_have(stack: Stack) -> None:
    stack.start_redis(persistent=True)
    stack.start_redis_broker()
    stack.wait_until_ready()
    publish(stack.broker_url, "still here")
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as store:
        store.set("name", "value")
    for name in ("redis", "broker"):
        stack.kill(name)
        wait_for(lambda name=name: not stack.alive(name), 5, "its end")  # type: ignore[misc]
        stack.restart(name)
        stack.wait_until_ready()
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as store:
        assert store.get("name") == "value"
        assert store.keys("_kombu*") == []
    assert taken(stack.broker_url) == ["still here"]


def test_a_restarted_worker_is_ready_by_its_own_words(stack: Stack) -> None:
    """Not by those of the one before it, whose log it goes on with."""
    stack.start_redis()
    stack.start_workers("callback")
    stack.wait_until_ready()
    first = stack.parts["callback"]
    stack.kill("callback")
    second = stack.restart("callback")
    assert '"worker_ready"' not in second.said()
    stack.wait_until_ready()
    assert (first.log, first.pid) != (second.log, second.pid)
    assert second.log.read_text().count('"worker_ready"') == 2


def test_a_stopped_part_goes_on_where_it_was_and_is_no_obstacle_to_the_end(stack: Stack) -> None:
    stack.start_redis()
    stack.wait_until_ready()
    pid = stack.parts["redis"].pid
    stack.kill("redis", signal.SIGSTOP)
    wait_for(lambda: _state(pid) == "T", 5, "it to stop")
    stack.kill("redis", signal.SIGCONT)
    wait_for(lambda: _state(pid) != "T", 5, "it to go on")
    stack.kill("redis", signal.SIGSTOP)
    begun = time.monotonic()
    stack.close()
    assert time.monotonic() - begun < 5
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
