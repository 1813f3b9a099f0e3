"""The list of log records and the lines of executions, in a real Redis."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from general.log_records import LogRecords
from shared.claims import TOMBSTONE_SECONDS
from shared.commands.execution_log import follow, row
from shared.errors import StateStoreError
from shared.execution_log import MOST_LINES, ExecutionLog, line_of
from shared.execution_state import ExecutionState, Run

RECORD = {"execution_id": "e1", "data": {"m": "ü"}}
KEPT = 4_000
RUN = Run("e1", "org", "wf", None, is_api=True)


@pytest.fixture
def records(redis_connection: "redis.Redis") -> LogRecords:
    return LogRecords(redis_connection, "log_history_queue", 100, KEPT)


@pytest.fixture
def state(redis_connection: "redis.Redis") -> ExecutionState:
    return ExecutionState(redis_connection, 100, 10)


def kept(client: "redis.Redis") -> list[dict[str, object]]:
    return [json.loads(item) for item in client.lrange("log_history_queue", 0, -1)]


def lines(client: "redis.Redis", execution_id: str = "e1") -> list[dict[str, Any]]:
    (found,) = follow(ExecutionLog(client), execution_id, to_the_end=False)
    return found


def test_a_record_is_appended_once_for_its_task(records: LogRecords, redis_connection: "redis.Redis") -> None:
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda _: records.append("task-1", RECORD, {"text": "a"}), range(32)))
    assert sum(done) == 1
    assert kept(redis_connection) == [RECORD]
    assert lines(redis_connection) == [{"text": "a"}]


def test_two_tasks_append_two_in_their_order(records: LogRecords, redis_connection: "redis.Redis") -> None:
    found = [records.append(f"task-{number}", RECORD | {"n": number}, {"n": number}) for number in range(3)]
    assert found == [True] * 3
    assert kept(redis_connection) == [RECORD | {"n": 0}, RECORD | {"n": 1}, RECORD | {"n": 2}]
    assert lines(redis_connection) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_claim_is_not_kept_for_ever(records: LogRecords, redis_connection: "redis.Redis") -> None:
    records.append("task-1", RECORD, {})
    assert 90 < redis_connection.ttl("workers:log:task-1") <= 100


def test_a_redis_that_is_away_says_so() -> None:
    with redis.Redis(port=9, socket_connect_timeout=1) as client, pytest.raises(StateStoreError, match="CACHE_REDIS"):
        LogRecords(client, "list", 100, KEPT).append("task-1", RECORD, {})


def test_an_execution_keeps_its_last_lines_for_a_while(
    records: LogRecords, state: ExecutionState, redis_connection: "redis.Redis"
) -> None:
    for number in range(MOST_LINES + 5):
        records.append(f"task-{number}", RECORD, {"timestamp": number})
    assert [line["timestamp"] for line in lines(redis_connection)] == list(range(5, MOST_LINES + 5))
    assert KEPT - 10 < redis_connection.ttl("workers:execution:e1:log") <= KEPT
    state.forget("e1")
    assert len(lines(redis_connection)) == MOST_LINES
    records.append("a late one", RECORD, {})
    assert 0 < redis_connection.ttl("workers:execution:e1:log") <= TOMBSTONE_SECONDS


def test_lines_are_shown_by_their_time_and_followed_to_the_end(
    records: LogRecords, state: ExecutionState, redis_connection: "redis.Redis"
) -> None:
    state.register(RUN)
    records.append("1", RECORD, {"timestamp": 2.0})
    records.append("2", RECORD, {"timestamp": 1.0})
    looks = follow(ExecutionLog(redis_connection), "e1", to_the_end=True)
    assert next(looks) == [{"timestamp": 1.0}, {"timestamp": 2.0}]
    assert next(looks) == []
    records.append("3", RECORD, {"timestamp": 3.0})
    assert next(looks) == [{"timestamp": 3.0}]
    state.forget("e1")
    records.append("4", RECORD, {"timestamp": 4.0})
    assert list(looks) == [[{"timestamp": 4.0}], []]


def test_an_execution_without_a_line_is_known_while_it_runs(
    state: ExecutionState, redis_connection: "redis.Redis"
) -> None:
    log = ExecutionLog(redis_connection)
    assert not log.known("e1")
    state.register(RUN)
    assert log.known("e1")
    assert lines(redis_connection) == []


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            {"level": "INFO", "stage": "RUN", "component": "tool", "log": "a", "timestamp": 1.5, "type": "LOG"},
            {"timestamp": 1.5, "level": "INFO", "stage": "RUN", "component": "tool", "text": "a"},
        ),
        ({"data": {"log": "a", "level": "ERROR", "file_name": "f"}}, {"level": "ERROR", "file": "f", "text": "a"}),
        ({"file_execution_id": "fe", "data": {"m": 1}}, {"file": "fe", "text": '{"m": 1}'}),
        ({"message": "x" * 3_000, "stage": "y" * 300}, {"stage": "y" * 200, "text": "x" * 2_000}),
        ({"level": {"a": 1}, "data": None}, {"text": "null"}),
    ],
)
def test_a_line_is_what_it_says_and_is_about(message: dict[str, Any], line: dict[str, Any]) -> None:
    assert line_of(message) == line


def test_a_row_steers_no_terminal() -> None:
    line = {"timestamp": 1.5, "level": "INFO", "stage": "RUN", "component": "tool", "file": "f", "text": "a\x1b[2J\nb"}
    assert row(line) == "1970-01-01 00:00:01.500+00:00  INFO     RUN/tool  f  a\N{REPLACEMENT CHARACTER}[2J\n    b"
    assert row({"timestamp": "noon"}) == "noon  -        -  -  "
