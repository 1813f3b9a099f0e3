"""The list of log records, in a real Redis."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from general.log_records import LogRecords
from shared.errors import StateStoreError

RECORD = {"execution_id": "e1", "data": {"m": "ü"}}


@pytest.fixture
def records(redis_connection: "redis.Redis") -> LogRecords:
    return LogRecords(redis_connection, "log_history_queue", 100)


def kept(client: "redis.Redis") -> list[dict[str, object]]:
    return [json.loads(item) for item in client.lrange("log_history_queue", 0, -1)]


def test_a_record_is_appended_once_for_its_task(records: LogRecords, redis_connection: "redis.Redis") -> None:
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda _: records.append("task-1", RECORD), range(32)))
    assert sum(done) == 1
    assert kept(redis_connection) == [RECORD]


def test_two_tasks_append_two_in_their_order(records: LogRecords, redis_connection: "redis.Redis") -> None:
    assert [records.append(f"task-{number}", {"n": number}) for number in range(3)] == [True] * 3
    assert kept(redis_connection) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_claim_is_not_kept_for_ever(records: LogRecords, redis_connection: "redis.Redis") -> None:
    records.append("task-1", RECORD)
    assert 90 < redis_connection.ttl("workers:log:task-1") <= 100


def test_a_redis_that_is_away_says_so() -> None:
    with redis.Redis(port=9, socket_connect_timeout=1) as client, pytest.raises(StateStoreError, match="CACHE_REDIS"):
        LogRecords(client, "list", 100).append("task-1", RECORD)
