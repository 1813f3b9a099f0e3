"""One suite over both citizens of the state store's border: the real one on Redis, and the fake of the unit tests."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
import redis

from file_processing.batch import fold
from shared.config import VISIBILITY_SECONDS
from shared.errors import StateStoreError
from shared.execution_state import ExecutionState, FanIn, redis_client
from shared.models import BatchResult, FileResult, Status
from tests.fakes import FakeState, settings

FAN_IN = FanIn(3, 9, "process_batch_callback_api", "api_file_processing_callback", {"execution_id": "ex"}, "task")
DEADLINE = 100.0


def result(name: str) -> BatchResult:
    return fold([FileResult(file=name, status=Status.COMPLETED)], "org")


@pytest.fixture(params=["redis", "fake"])
def state(request: pytest.FixtureRequest) -> Iterator[ExecutionState]:
    if request.param == "fake":
        yield cast("ExecutionState", FakeState())
        return
    client = request.getfixturevalue("redis_connection")
    found = ExecutionState(redis.Redis(connection_pool=client.connection_pool), DEADLINE)
    yield found
    found.close()


def test_the_last_batch_gets_the_fan_in(state: ExecutionState) -> None:
    assert state.fan_in("ex") is None
    assert state.open_fan_in("ex", FAN_IN) == FAN_IN
    assert state.fan_in("ex") == FAN_IN
    assert state.record_batch("ex", 2, result("c")) is None
    assert state.record_batch("ex", 0, result("a")) is None
    assert state.record_batch("ex", 2, result("again")) is None
    assert state.record_batch("ex", 1, result("b")) == FAN_IN
    names = [found["file_results"][0]["file"] for found in state.batch_results("ex")]
    assert names == ["a", "b", "c"]


def test_only_the_batch_that_completes_the_set_gets_the_fan_in(state: ExecutionState) -> None:
    state.open_fan_in("ex", FanIn(2, 2, "t", "q", {}, "task"))
    assert state.record_batch("ex", 0, result("a")) is None
    assert state.record_batch("ex", 1, result("b")) is not None
    assert state.record_batch("ex", 0, result("a")) is None
    assert state.record_batch("ex", 1, result("b")) is not None


def test_the_fan_in_is_given_out_until_it_was_sent(state: ExecutionState) -> None:
    state.open_fan_in("ex", FanIn(1, 1, "t", "q", {}, "task"))
    assert state.record_batch("ex", 0, result("a")) is not None
    assert state.record_batch("ex", 0, result("a")) is not None
    state.callback_sent("ex")
    assert state.record_batch("ex", 0, result("a")) is None


def test_opening_it_again_changes_nothing(state: ExecutionState) -> None:
    state.open_fan_in("ex", FAN_IN)
    state.record_batch("ex", 0, result("a"))
    assert state.open_fan_in("ex", FanIn(1, 1, "other", "other", {}, "other")) == FAN_IN
    assert state.record_batch("ex", 1, result("b")) is None
    assert state.record_batch("ex", 2, result("c")) == FAN_IN


def test_without_a_fan_in_nothing_is_recorded(state: ExecutionState) -> None:
    assert state.record_batch("unknown", 0, result("a")) is None
    assert state.batch_results("unknown") == []


def test_files_are_remembered_by_their_places(state: ExecutionState) -> None:
    kept = FileResult(file="a", status=Status.ERROR, error="broken", execution_time=1.5)
    state.record_file("ex", "0/4", kept)
    assert state.file_results("ex", ["0/3", "0/4", "1/4"]) == {"0/4": kept}
    assert state.file_results("ex", []) == {}
    assert state.file_results("other", ["0/4"]) == {}


def test_files_can_be_forgotten_alone(state: ExecutionState) -> None:
    for place in ("0/0", "0/1"):
        state.file_started("ex", place, 1.0)
        state.record_file("ex", place, FileResult(file="a", status=Status.COMPLETED))
    state.forget_files("ex", ["0/0"])
    assert list(state.file_results("ex", ["0/0", "0/1"])) == ["0/1"]
    assert state.file_started("ex", "0/0", 2.0) == 2.0


def test_the_first_start_of_a_file_counts(state: ExecutionState) -> None:
    assert state.file_started("ex", "0/0", 5.5) == 5.5
    assert state.file_started("ex", "0/0", 9.0) == 5.5
    assert state.file_started("ex", "0/1", 9.0) == 9.0


def test_a_callback_that_ran_already_is_not_remembered(state: ExecutionState) -> None:
    state.open_fan_in("ex", FanIn(1, 1, "t", "q", {}, "task"))
    state.forget("ex")
    state.callback_sent("ex")
    state.open_fan_in("ex", FanIn(1, 1, "t", "q", {}, "task"))
    assert state.record_batch("ex", 0, result("a")) is not None


def test_a_result_is_pushed_once(state: ExecutionState) -> None:
    assert state.push_api_result("wf", "ex", "fe", {"file": "a"})
    assert not state.push_api_result("wf", "ex", "fe", {"file": "a"})
    assert state.push_api_result("wf", "ex", "other", {"file": "b"})


def test_the_first_reason_is_kept(state: ExecutionState) -> None:
    assert state.failure("ex") is None
    state.fail("ex", "first")
    state.fail("ex", "second")
    assert state.failure("ex") == "first"


def test_forgetting_leaves_nothing(state: ExecutionState) -> None:
    state.open_fan_in("ex", FAN_IN)
    state.record_batch("ex", 0, result("a"))
    state.file_started("ex", "0/0", 1.0)
    state.record_file("ex", "0/0", FileResult(file="a", status=Status.COMPLETED))
    state.fail("ex", "reason")
    state.forget("ex")
    assert state.failure("ex") is None
    assert state.file_results("ex", ["0/0"]) == {}
    assert state.file_started("ex", "0/0", 2.0) == 2.0
    assert state.record_batch("ex", 0, result("a")) is None


def test_of_many_threads_one_batch_gets_the_fan_in(redis_connection: "redis.Redis") -> None:
    """Each batch is delivered twice, all at once."""
    state = ExecutionState(redis.Redis(connection_pool=redis_connection.connection_pool), DEADLINE)
    state.open_fan_in("ex", FanIn(64, 64, "t", "q", {}, "task"))
    numbers = [*range(64), *range(64)]
    with ThreadPoolExecutor(16) as pool:
        given = list(pool.map(lambda number: state.record_batch("ex", number, result(str(number))), numbers))
    assert len({number for number, found in zip(numbers, given, strict=True) if found is not None}) == 1
    assert len(state.batch_results("ex")) == 64


def test_every_key_ends_with_the_execution_but_the_backends(redis_connection: "redis.Redis") -> None:
    state = ExecutionState(redis.Redis(connection_pool=redis_connection.connection_pool), DEADLINE)
    state.open_fan_in("ex", FAN_IN)
    state.record_batch("ex", 0, result("a"))
    state.file_started("ex", "0/0", 1.0)
    state.record_file("ex", "0/0", FileResult(file="a", status=Status.COMPLETED))
    state.push_api_result("wf", "ex", "fe", {"file": "a", "status": "Success"})
    state.fail("ex", "reason")
    keys = sorted(redis_connection.scan_iter())
    assert len(keys) == 7
    for key in keys:
        lasts = redis_connection.ttl(key)
        assert (86_000 < lasts <= 86_400) if key == "api_results:wf:ex" else (DEADLINE < lasts <= DEADLINE + 3_600)
    state.forget("ex")
    assert set(redis_connection.scan_iter()) == {"api_results:wf:ex", "workers:execution:ex:pushed"}
    assert redis_connection.ttl("workers:execution:ex:pushed") <= VISIBILITY_SECONDS
    assert not state.push_api_result("wf", "ex", "fe", {"file": "a", "status": "by a copy that was late"})
    assert [json.loads(item) for item in redis_connection.lrange("api_results:wf:ex", 0, -1)] == [
        {"file": "a", "status": "Success"}
    ]


def test_an_absent_store_is_a_typed_error() -> None:
    state = ExecutionState(redis_client(settings(CACHE_REDIS_HOST="127.0.0.1", CACHE_REDIS_PORT="1")), DEADLINE)
    with pytest.raises(StateStoreError, match="CACHE_REDIS"):
        state.failure("ex")
    state.close()
