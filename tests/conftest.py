"""Services for tests: an embedded Valkey by default, RabbitMQ and PostgreSQL where they are.

Where a service is not found, its tests skip with the reason; with REQUIRE_SERVICES=1, as in CI, they fail.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import redis
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from config.queue_routing import DEAD_LETTERS
from config.workers import PROFILES
from sandbox.stack import Stack, listens, unusable_broker

REDIS = os.environ.get("TEST_REDIS_URL")  # its database is emptied
RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
POSTGRESQL = os.environ.get("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
REQUIRED = os.environ.get("REQUIRE_SERVICES") == "1"

# A shell in the background starts its commands deaf to Ctrl-C, and the processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def without(reason: str) -> NoReturn:
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


def answers(url: str, port: int) -> bool:
    parts = urlsplit(url)
    return listens(parts.hostname or "127.0.0.1", parts.port or port)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Valkey server of this test run, or the Redis that was given."""
    if REDIS is not None:
        yield REDIS
        return
    with Stack() as stack:
        stack.start_redis()
        stack.wait_until_ready()
        yield stack.redis_url


@pytest.fixture
def redis_connection(redis_url: str) -> Iterator["redis.Redis"]:
    """A connection to an empty state store."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def rabbitmq_url() -> Iterator[str]:
    """RabbitMQ, with our queues empty before and gone afterwards."""
    with emptied_rabbitmq() as url:
        yield url


@contextmanager
def emptied_rabbitmq() -> Iterator[str]:
    """The same, for fixtures that last longer than a test."""
    if not answers(RABBITMQ, 5672):
        without("RabbitMQ is not reachable; set TEST_RABBITMQ_URL")
    unusable = unusable_broker(RABBITMQ)
    if unusable and not REQUIRED:
        without(f"RabbitMQ: {unusable}; set TEST_RABBITMQ_URL to one for tests")
    _delete_queues()
    yield RABBITMQ
    _delete_queues()


def _delete_queues() -> None:
    with Connection(RABBITMQ, connect_timeout=5) as connection, connection.channel() as channel:
        for name in (*PROFILES["all"].queues, DEAD_LETTERS):
            Queue(name, Exchange(name, "direct"), name, channel=channel).delete()
            Exchange(name, "direct", channel=channel).delete()


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """The address of a PostgreSQL database that exists for one test; its user of the server creates it."""
    if not answers(POSTGRESQL, 5432):
        without("PostgreSQL is not reachable; set TEST_POSTGRESQL_URL")
    name = f"workers_test_{uuid4().hex}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield urlsplit(POSTGRESQL)._replace(path=f"/{name}").geturl()
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
