"""Services for tests: an embedded Valkey by default, RabbitMQ and PostgreSQL where they are.

Where a service is not found, its tests skip with the reason; with REQUIRE_SERVICES=1, as in CI, they fail.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import redis
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from xdist.scheduler import LoadFileScheduling

from config.queue_routing import DEAD_LETTERS
from config.workers import PROFILES
from sandbox import probes
from sandbox.stack import Stack, listens, unusable_broker

REDIS = os.environ.get("TEST_REDIS_URL")  # its database is emptied
RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
POSTGRESQL = os.environ.get("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
PROCESSES = 3  # on two cores: half of the time of two is spent waiting
REQUIRED = os.environ.get("REQUIRE_SERVICES") == "1"

# A shell in the background starts its commands deaf to Ctrl-C, and the processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# In the name or parameters of every test that uses RabbitMQ. There is one, which each of them empties.
ON_RABBITMQ = "rabbitmq"
# Measures tenths of seconds: in one process, and last, when no fleets start beside it.
BY_THE_CLOCK = "tests/integration/client/"


class OneForEach(LoadFileScheduling):  # type: ignore[misc] # it has no types
    """Hands out whole files, whose tests share fleets and backends, but to one process what must not overlap.

    It goes by names, since it knows nothing else of a test; xdist's own groups are lost with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        alone = (one for one in (ON_RABBITMQ, BY_THE_CLOCK) if one in nodeid)
        return next(alone, None) or str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneForEach:
    return OneForEach(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """None beside this one where there is one file, or a Redis that was given: each test that uses it empties it."""
    files = [name for name in config.args if Path(name.partition("::")[0]).is_file()]
    return 0 if REDIS is not None or len(files) == len(config.args) == 1 else PROCESSES


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.startswith(BY_THE_CLOCK))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rabbitmq_url" in metafunc.fixturenames:
        metafunc.parametrize("rabbitmq_url", [ON_RABBITMQ], indirect=True)


# Each process takes its free ports from a share of its own: between choice and use nobody holds them, nor in a restart.
probes._PORTS = probes._PORTS[
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
]


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
    running = os.environ.get("PYTEST_CURRENT_TEST", ON_RABBITMQ)
    assert ON_RABBITMQ in running, f"it uses RabbitMQ, so its name or a parameter must have {ON_RABBITMQ!r}: {running}"
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


Promtool = Callable[..., "subprocess.CompletedProcess[str]"]


def installed(program: str) -> str:
    """Where that program is; without it a test skips, or fails."""
    found = shutil.which(program)
    return found or without(f"{program} is not installed; it is in Debian's package prometheus")


@pytest.fixture
def promtool() -> Promtool:
    """Run promtool, whatever it says."""
    program = installed("promtool")

    def run(*argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *argv], capture_output=True, text=True, check=False, timeout=60)

    return run
