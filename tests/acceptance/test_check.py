"""`workers check` over real services: what it finds right, what it finds wrong, and what it says to do."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sandbox import servers
from sandbox.stack import Stack
from tests.conftest import without

WORKERS = str(Path(sys.executable).with_name("workers"))


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        stack.start_redis()
        stack.start_backend()
        stack.wait_until_ready()
        yield stack


@pytest.fixture
def store(stack: Stack) -> Iterator["redis.Redis"]:
    """The stack's Redis, configured as it was when the test is over."""
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
        yield client
        for name, value in (("maxmemory-policy", "noeviction"), ("maxmemory", "0"), ("appendonly", "no"), ("save", "")):
            client.config_set(name, value)


def check(stack: Stack, **variables: str) -> tuple[int, dict[str, str], str]:
    """Its exit code, its findings by their subject, and everything it printed."""
    ran = subprocess.run(
        [WORKERS, "check"], env=stack.environment(**variables), capture_output=True, text=True, check=False, timeout=60
    )
    printed = ran.stdout + ran.stderr
    assert "Traceback" not in printed
    found: dict[str, str] = {}
    subject = ""
    for line in ran.stdout.partition("\n\n")[0].splitlines():
        subject = line[:26].strip() or subject
        found[subject] = f"{found.get(subject, '')} {line[26:].strip()}".strip()
    return ran.returncode, found, printed


def test_all_is_well(stack: Stack, store: "redis.Redis", rabbitmq_url: str) -> None:
    store.config_set("appendonly", "yes")
    code, found, printed = check(stack, CELERY_BROKER_URL=rabbitmq_url, GENERAL_CONCURRENCY="many")
    assert found.pop("profile general").startswith("note   it would not start: GENERAL_CONCURRENCY must be")
    assert {line.split()[0] for line in found.values()} == {"ok"}
    assert code == 0
    assert "is 'healthy', version '1.0.0'" in found["backend"]
    assert "RabbitMQ" in found["broker"]
    assert "append-only file" in found["state store, persistence"]
    assert "BATCH_SLICE_SECONDS" in printed
    for secret in (stack.key, stack.redis_password, "guest:guest"):
        assert secret not in printed


def test_a_store_that_keeps_nothing_is_wrong_in_production_and_a_note_elsewhere(stack: Stack) -> None:
    code, found, _ = check(stack)
    assert found["state store, persistence"].startswith("note")
    assert found["broker, persistence"].startswith("note")
    assert code == 0
    code, found, _ = check(stack, ENVIRONMENT="production")
    assert found["state store, persistence"].startswith("WRONG")
    assert found["state store, persistence"].endswith("-> set appendonly to yes")
    assert code == 1


def test_snapshots_are_a_note(stack: Stack, store: "redis.Redis") -> None:
    store.config_set("save", "3600 1")
    code, found, _ = check(stack, ENVIRONMENT="production")
    assert found["state store, persistence"].startswith("note   snapshots (3600 1)")
    assert code == 0


def test_a_store_that_may_evict_is_wrong_once_it_has_a_bound(stack: Stack, store: "redis.Redis") -> None:
    store.config_set("maxmemory-policy", "allkeys-lru")
    code, found, _ = check(stack)
    assert "no maxmemory at which it would begin" in found["state store, eviction"]
    assert code == 0
    store.config_set("maxmemory", "100mb")
    code, found, _ = check(stack)
    assert found["state store, eviction"].startswith("WRONG  allkeys-lru at 104857600 bytes")
    assert found["state store, eviction"].endswith("-> set maxmemory-policy to noeviction")
    assert code == 1


@pytest.mark.parametrize(
    ("variables", "subject", "remedy"),
    [
        ({"INTERNAL_SERVICE_API_KEY": "another"}, "backend", "INTERNAL_SERVICE_API_KEY must be the key"),
        ({"INTERNAL_API_BASE_URL": "http://127.0.0.1:1/internal"}, "backend", "start the backend, or correct"),
        ({"INTERNAL_API_BASE_URL": "{backend}/elsewhere/internal"}, "backend", "must lead to the backend's internal"),
        ({"CELERY_BROKER_URL": "amqp://x:hidden@127.0.0.1:1//"}, "broker", "in CELERY_BROKER_URL"),
        ({"CELERY_BROKER_URL": "redis://:hidden@127.0.0.1:{redis}/0"}, "broker", "in CELERY_BROKER_URL"),
        ({"CACHE_REDIS_PASSWORD": "hidden"}, "state store", "in CACHE_REDIS_*"),
        ({"CACHE_REDIS_PORT": "1"}, "state store", "in CACHE_REDIS_*"),
        ({"CACHE_REDIS_PORT": "x"}, "configuration", "CACHE_REDIS_PORT must be a whole number from 1 to 65535"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_remedy(
    stack: Stack, variables: dict[str, str], subject: str, remedy: str
) -> None:
    places = {"backend": stack.backend_url, "redis": str(stack.redis_port)}
    code, found, printed = check(stack, **{name: value.format_map(places) for name, value in variables.items()})
    assert code == 1
    assert found[subject].startswith("WRONG")
    assert remedy in found[subject]
    assert "hidden" not in printed
    assert stack.key not in printed


@pytest.mark.parametrize("command", [f"{WORKERS} check | head -n 1", f"LC_ALL=C PYTHONUTF8=0 {WORKERS} check"])
def test_any_reader_can_read_it(stack: Stack, command: str) -> None:
    """One that leaves after a line, and one that knows ASCII alone."""
    environment = stack.environment(INTERNAL_SERVICE_API_KEY="another", PYTHONCOERCECLOCALE="0")
    ran = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.startswith("configuration")
    assert ran.stderr == ""


def test_a_rabbitmq_that_takes_no_messages_is_wrong() -> None:
    if servers.rabbitmq_program() is None:
        without("RabbitMQ is not installed")
    with Stack() as stack:
        stack.start_rabbitmq()
        # It lets everybody in, and blocks whoever publishes: https://www.rabbitmq.com/docs/alarms
        settings = stack.folder / "broker.d" / "rabbitmq.conf"
        settings.write_text(settings.read_text().replace("limit.absolute = 50MB", "limit.absolute = 999999GB"))
        stack.restart("broker")
        stack.wait_until_ready()
        code, found, _ = check(stack)
    assert code == 1
    assert found["broker"].startswith("WRONG")
    assert "out of memory or disk" in found["broker"]
