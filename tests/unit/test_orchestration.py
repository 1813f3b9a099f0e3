"""The plan, the fan-out and the fan-in, over the fakes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.workers import orchestration_of
from shared.errors import BrokerError
from shared.models import Batch, FileHash, FileResult, Status, parse
from shared.orchestration import MOST_BATCHES, batch_claim, fan_in, fan_out, fold, is_ours, places, plan, send_again
from tests.fakes import FakeApp, known, request

API = orchestration_of(is_api=True)


def files(count: int) -> list[FileHash]:
    return [FileHash(file_name=f"{number}.txt", file_number=number + 1) for number in range(count)]


@given(items=st.lists(st.integers(), max_size=300), limit=st.integers(-3, 200))
def test_the_plan_follows_the_batch_rule(items: list[int], limit: int) -> None:
    batches = plan(items, limit)
    assert len(batches) == min(max(limit, 1), MOST_BATCHES, len(items))
    for position, item in enumerate(items):
        assert batches[position % len(batches)][position // len(batches)] == item
    assert sum(map(len, batches)) == len(items)


def test_fan_out_sends_every_file_once_in_the_contracts_shape() -> None:
    app = FakeApp()
    known(app)
    options = {"pipeline_id": "pipe", "llm_profile_id": "llm", "custom_data": {"a": 1}, "use_file_history": True}
    assert fan_out(app.call(), request(**options), API, files(5), 2) == 2
    assert [(sent.task, sent.queue) for sent in app.sent] == [("process_file_batch", "api_file_processing")] * 2
    names = [[item[0] for item in sent.args[0]["files"]] for sent in app.sent]
    assert names == [["0.txt", "2.txt", "4.txt"], ["1.txt", "3.txt"]]
    data = app.sent[0].args[0]["file_data"]
    assert options.items() <= data.items()
    assert {"workflow_id": "wf", "execution_id": "ex", "organization_id": "org"}.items() <= data.items()
    assert parse(Batch, app.sent[1].args[0]).files[1].file_number == 4


def test_no_files_means_the_callback_at_once() -> None:
    app = FakeApp()
    known(app)
    assert fan_out(app.call(), request(pipeline_id="p"), API, [], 4) == 0
    (sent,) = app.sent
    assert (sent.task, sent.queue, sent.args) == ("process_batch_callback_api", API.callback_queue, [[]])
    assert sent.kwargs == {"execution_id": "ex", "organization_id": "org", "pipeline_id": "p"}


def result_of(number: int) -> Any:
    return fold([FileResult(file=f"{number}.txt", status=Status.COMPLETED)], "org")


@given(order=st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_any_order_of_deliveries_gives_one_callback_with_every_batch_once(order: list[int]) -> None:
    app = FakeApp()
    known(app)
    fan_out(app.call(), request(), API, files(4), 4)
    places = [sent.headers for sent in app.sent]
    app.sent.clear()
    for number in [*order, 0, 1, 2, 3, *order]:
        fan_in(app.call(**places[number]), result_of(number))
    (callback,) = app.sent
    assert callback.task == "process_batch_callback_api"
    assert [result["file_results"][0]["file"] for result in callback.args[0]] == [f"{n}.txt" for n in range(4)]


def test_a_callback_that_could_not_be_sent_is_sent_by_the_redelivery() -> None:
    app = FakeApp()
    known(app)
    fan_out(app.call(), request(), API, files(1), 1)
    place = app.sent.pop().headers
    app.broker_is_away = True
    with pytest.raises(BrokerError, match="api_file_processing_callback"):
        fan_in(app.call(**place), result_of(0))
    app.broker_is_away = False
    fan_in(app.call(**place), result_of(0))
    fan_in(app.call(**place), result_of(0))
    assert len(app.sent) == 1


def test_files_are_named_by_their_batch_or_by_its_task() -> None:
    app = FakeApp()
    known(app)
    fan_out(app.call(), request(), API, files(2), 1)
    sent = app.sent.pop()
    batch = parse(Batch, sent.args[0])
    assert list(places(app.call(**sent.headers), batch)) == ["0/0/0.txt", "0/1/1.txt"]
    assert list(places(app.call(), batch)) == ["task-1/0/0.txt", "task-1/1/1.txt"]
    assert is_ours(app.call(**sent.headers))
    assert not is_ours(app.call())


def test_batches_that_may_be_lost_are_sent_again_without_credentials_and_those_at_work_are_not() -> None:
    app = FakeApp()
    known(app)
    secret = FileHash.model_validate({"file_name": "s.txt", "connector_metadata": {"password": "s3cret"}})
    fan_out(app.call(), request(), API, [*files(2), secret], 3)
    assert app.sent[2].args[0]["files"][0][1]["connector_metadata"] == {"password": "s3cret"}
    assert "s3cret" not in str(app.redis.hgetall("workers:execution:ex:plan"))
    first = app.sent[:]
    app.sent.clear()
    fan_in(app.call(**first[0].headers), result_of(0))
    app.claims.take(batch_claim(app.call(), "ex", 1))
    run = app.state.run("ex")
    assert run is not None
    assert send_again(app.call(), run) == [2]
    (again,) = app.sent
    assert (again.task, again.queue, again.headers) == (first[2].task, first[2].queue, first[2].headers)
    assert again.args[0]["file_data"] == first[2].args[0]["file_data"]


def test_a_batch_of_a_finished_execution_sends_nothing() -> None:
    app = FakeApp()
    fan_in(app.call(fan_in={"execution_id": "gone", "batch": 0}), result_of(0))
    assert app.sent == []
