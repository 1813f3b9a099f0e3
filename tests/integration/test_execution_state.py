"""One suite over both citizens of the state store's border: Redis, and the one in memory of the unit tests."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from shared.claims import Claims, Lease
from shared.errors import StateStoreError
from shared.execution_state import ExecutionState, Run
from shared.file_state import Begun
from shared.models import BatchResult, Context, FileResult, Stage, Status
from shared.orchestration import fold
from shared.redis_connection import redis_client
from tests.fakes import memory, settings

RUN = Run("ex", "org", "wf", "pipe", is_api=True)
DEADLINE, STALL = 100.0, 10.0


def result(name: str) -> BatchResult:
    return fold([FileResult(file=name, status=Status.COMPLETED)], "org")


@pytest.fixture(params=["redis", "memory"])
def client(request: pytest.FixtureRequest) -> Any:
    return memory() if request.param == "memory" else request.getfixturevalue("redis_connection")


@pytest.fixture
def state(client: Any) -> ExecutionState:
    return ExecutionState(client, DEADLINE, STALL)


def opened(state: ExecutionState, batches: int) -> None:
    state.register(RUN)
    state.open_fan_in("ex", batches, batches, {number: f'{{"batch": {number}}}' for number in range(batches)})


def test_the_last_batch_is_the_one_to_send_the_callback(state: ExecutionState) -> None:
    opened(state, 3)
    recorded = [
        state.record_batch("ex", batch, result(name)) for batch, name in ((2, "c"), (0, "a"), (2, "x"), (1, "b"))
    ]
    assert recorded == [False, False, False, True]
    names = {number: found["file_results"][0]["file"] for number, found in state.known("ex").results.items()}
    assert names == {0: "a", 1: "b", 2: "c"}
    assert list(names) == [0, 1, 2]


def test_only_that_one_until_it_was_sent(state: ExecutionState) -> None:
    opened(state, 2)
    assert [state.record_batch("ex", batch, result("a")) for batch in (0, 1, 0, 1)] == [False, True, False, True]
    state.callback_sent("ex")
    assert [state.record_batch("ex", batch, result("a")) for batch in (0, 1)] == [False, False]


def test_registering_and_opening_it_again_changes_nothing(state: ExecutionState) -> None:
    first = state.register(RUN)
    assert (first.batches, first.is_api, first.pipeline_id) == (None, True, "pipe")
    assert DEADLINE - 5 < first.deadline - time.time() <= DEADLINE
    opened(state, 3)
    state.record_batch("ex", 0, result("a"))
    again = state.register(Run("ex", "other", "other", None, is_api=False, deadline=1.0))
    state.open_fan_in("ex", 1, 1, {0: "{}"})
    assert (again.organization_id, again.deadline, again.batches, again.files) == ("org", first.deadline, 3, 3)
    assert state.plan("ex") == {1: {"batch": 1}, 2: {"batch": 2}}
    assert not state.record_batch("ex", 1, result("b"))
    assert state.record_batch("ex", 2, result("c"))


def test_of_what_is_not_known_nothing_is_recorded(state: ExecutionState) -> None:
    assert state.run("unknown") is None
    assert not state.record_batch("unknown", 0, result("a"))
    assert state.known("unknown").results == {}


def test_files_are_remembered_by_their_places_and_the_first_end_counts(state: ExecutionState) -> None:
    kept = FileResult(file="a", status=Status.ERROR, error="broken", execution_time=1.5)
    state.record_file("ex", "0/4", kept)
    state.record_file("ex", "0/4", FileResult(file="a", status=Status.COMPLETED))
    assert state.at_hand("ex", "org", ["0/3", "0/4", "1/4"])[2] == {"0/4": kept}
    assert state.at_hand("ex", "org", [])[2] == {}
    assert state.at_hand("other", "org", ["0/4"])[2] == {}


def test_files_can_be_forgotten_alone(state: ExecutionState) -> None:
    opened(state, 1)
    for place in ("0/0", "0/1"):
        state.begin_file("ex", place, 1.0)
        state.record_file("ex", place, FileResult(file="a", status=Status.COMPLETED))
    state.forget_files("ex", ["0/0"])
    assert list(state.at_hand("ex", "org", ["0/0", "0/1"])[2]) == ["0/1"]
    assert state.begin_file("ex", "0/0", 2.0).started == 2.0


def test_the_first_start_of_a_file_counts(state: ExecutionState) -> None:
    opened(state, 1)
    begun = [state.begin_file("ex", *started) for started in (("0/0", 5.5), ("0/0", 9.0), ("0/1", 9.0))]
    assert [one.started for one in begun] == [5.5, 5.5, 9]


def test_the_first_reason_is_kept(state: ExecutionState) -> None:
    assert state.known("ex").failure is None
    state.fail("ex", "first", 3)
    state.fail("ex", "second", 4)
    assert state.known("ex").failure == ("first", 3)


def test_the_stages_of_files_are_told(state: ExecutionState) -> None:
    opened(state, 1)
    state.begin_file("ex", "0/6", 1.0)
    state.stage("ex", "0/7", Stage.EXECUTING)
    state.push_api_result("wf", "ex", "row", {}, "0/8")
    state.push_api_result("wf", "ex", "another row", {})
    state.record_file("ex", "0/9", FileResult(file="a", status=Status.COMPLETED))
    wanted = [Stage.STARTED, Stage.EXECUTING, Stage.STORING, Stage.DONE]
    assert state.stages("ex") == {f"0/{number}": stage for number, stage in enumerate(wanted, 6)}


def test_thousands_of_files_are_kept_at_once(state: ExecutionState, client: Any) -> None:
    opened(state, 1)
    reasons = {f"{number}.txt": "another has it" for number in range(5_000)}
    state.skip("ex", reasons)
    assert state.known("ex").skipped == reasons
    state.keep_cached("ex", {})
    assert not client.exists("workers:execution:ex:cached")


def test_a_context_of_another_or_one_that_cannot_be_read_is_none(state: ExecutionState, client: Any) -> None:
    context = Context(execution_id="ex", workflow_id="wf", organization_id="org", is_api=True)
    state.keep_context(context)
    assert state.at_hand("ex", "org", [])[1] == context
    assert 1_100 < client.ttl("context:ex") <= 1_200
    assert state.at_hand("ex", "another", [])[1] is None
    client.set("context:other", context.model_dump_json())
    assert state.at_hand("other", "org", [])[1] is None
    for nonsense in ("", "{", "[]", '{"execution_id": "ex"}', '{"is_api": "maybe"}'):
        client.set("context:ex", nonsense)
        assert state.at_hand("ex", "org", [])[1] is None


def test_a_stop_is_looked_for_once_in_a_while(state: ExecutionState) -> None:
    assert state.begin_file("ex", "0/0", 1.0).ask
    assert state.stages("ex") == {}
    assert not state.begin_file("ex", "0/0", 1.0).ask
    assert state.begin_file("another", "0/0", 1.0).ask
    opened(state, 1)
    assert state.begin_file("ex", "0/0", 1.0) == Begun(stopped=None, ask=False, started=1.0)
    state.stop("ex", "STOPPED")
    assert state.begin_file("ex", "0/1", 1.0).stopped == "STOPPED"
    assert state.stages("ex") == {"0/0": Stage.STARTED}


def test_of_an_execution_that_has_ended_no_file_begins_unasked(state: ExecutionState, client: Any) -> None:
    opened(state, 1)
    state.forget("ex")
    assert state.begin_file("ex", "0/0", 1.0) == Begun(stopped=None, ask=True, started=1.0)
    assert not client.exists("workers:execution:ex:started", "workers:execution:ex:stages")


def test_a_notification_is_told_once_and_its_tries_are_counted(state: ExecutionState) -> None:
    assert [state.begin_notification("ex", "n"), state.begin_notification("ex", "n")] == [1, 2]
    state.notified("ex", "n")
    assert state.begin_notification("ex", "n") == 0
    assert state.begin_notification("ex", "another") == 1


def test_progress_moves_the_reapers_look_but_never_beyond_the_deadline(state: ExecutionState) -> None:
    state.register(RUN)
    now = time.time()
    assert state.due(now + STALL - 1) == []
    assert state.due(now + STALL + 1) == ["ex"]
    state.looked_after("ex", now - 5)
    assert state.due(now) == ["ex"]
    state.record_file("ex", "0/0", FileResult(file="a", status=Status.COMPLETED))
    assert state.due(now + STALL - 1) == []
    run = state.run("ex")
    assert run is not None
    assert run.looks == 1
    late = ExecutionState(state._redis, DEADLINE, 10 * DEADLINE)
    late.record_file("ex", "0/1", FileResult(file="a", status=Status.COMPLETED))
    assert state.due(run.deadline) == ["ex"]
    state.strike_off("ex")
    assert state.due(run.deadline) == []


def everything(state: ExecutionState) -> None:
    opened(state, 2)
    state.record_batch("ex", 0, result("a"))
    state.begin_file("ex", "0/0", 1.0)
    state.record_file("ex", "0/0", FileResult(file="a", status=Status.COMPLETED))
    state.stage("ex", "0/0", Stage.DONE)
    state.push_api_result("wf", "ex", "fe", {"file": "a", "status": "Success"})
    state.fail("ex", "reason")
    state.stop("ex", "STOPPED")
    state.keep_cached("ex", {"hash": {"result": "text"}})
    state.skip("ex", {"b": "another has it"})
    state.begin_notification("ex", "n")
    state.keep_context(Context(execution_id="ex", workflow_id="wf", organization_id="org", is_api=True))


def test_every_key_ends_by_itself(state: ExecutionState, client: Any) -> None:
    everything(state)
    keys = set(client.keys()) - {"workers:executions"}
    assert len(keys) == 14
    lasts = {key: client.ttl(key) for key in keys}
    assert 86_000 < lasts.pop("api_results:wf:ex") <= 86_400
    assert lasts.pop("context:ex") <= 1_200
    assert lasts.pop("workers:execution:ex:look") <= 5
    assert all(DEADLINE < left <= DEADLINE + 3_600 for left in lasts.values())


def test_of_what_has_ended_nothing_is_left_and_nothing_comes_back(state: ExecutionState, client: Any) -> None:
    everything(state)
    state.forget("ex")
    left = {"api_results:wf:ex", "workers:execution:ex:ended"}
    assert set(client.keys()) == left
    everything(state)
    assert not state.push_api_result("wf", "ex", "late", {"file": "a", "status": "by a copy that was late"})
    assert set(client.keys()) == left | {"context:ex", "workers:execution:ex:look"}
    results = [json.loads(item) for item in client.lrange("api_results:wf:ex", 0, -1)]
    assert results == [{"file": "a", "status": "Success"}]


def test_a_result_is_pushed_once(state: ExecutionState) -> None:
    pushed = [state.push_api_result("wf", "ex", row, {"file": "a"}) for row in ("fe", "fe", "other")]
    assert pushed == [True, False, True]


def test_of_many_threads_one_batch_is_to_send_the_callback(redis_connection: "redis.Redis") -> None:
    """Each batch is delivered twice, all at once."""
    state = ExecutionState(redis_connection, DEADLINE, STALL)
    opened(state, 64)
    numbers = [*range(64), *range(64)]
    with ThreadPoolExecutor(16) as pool:
        given = list(pool.map(lambda number: state.record_batch("ex", number, result(str(number))), numbers))
    assert len({number for number, fires in zip(numbers, given, strict=True) if fires}) == 1
    assert len(state.known("ex").results) == 64


def test_an_absent_store_is_a_typed_error() -> None:
    client = redis_client(settings(CACHE_REDIS_HOST="127.0.0.1", CACHE_REDIS_PORT="1"))
    with pytest.raises(StateStoreError, match="CACHE_REDIS"):
        ExecutionState(client, DEADLINE, STALL).known("ex")
    client.close()


def test_a_look_at_an_execution_that_has_just_ended_leaves_nothing_behind(state: ExecutionState, client: Any) -> None:
    state.register(RUN)
    state.forget("ex")
    state.looked_after("ex", time.time())
    assert set(client.keys("*")) == {"workers:execution:ex:ended"}


def test_a_claim_whose_answer_was_lost_is_one_delivery_however_often_it_is_asked_again(
    state: ExecutionState, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = Claims(client, 15)
    take = claims._scripts["take"]

    def answered_at_last(*args: Any, **kwargs: Any) -> Any:
        return [take(*args, **kwargs) for _ in range(3)][-1]

    monkeypatch.setitem(claims._scripts, "take", answered_at_last)
    lease = claims.take(state.claim("ex", "batch:0"))
    assert isinstance(lease, Lease)
    assert lease.deliveries == 1
    claims.close()
