"""Batches and their files, over the fakes: every way a file can end, and where a later delivery goes on."""

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.queue_routing import DEAD_LETTERS
from config.workers import orchestration_of
from file_processing.tasks import process_file_batch
from shared.backend_models import FileRun
from shared.claims import Lease, LeaseLost
from shared.errors import (
    AlreadyDone,
    BackendBusyError,
    BackendRefusedError,
    BackendUnavailableError,
    HandBack,
    NotFoundError,
    PayloadError,
    PoisonError,
)
from shared.models import Context, FileHash, Status
from shared.orchestration import batch_work, fan_out
from tests.fakes import FakeApp, completed, known, request, settings

API = orchestration_of(is_api=True)
process = process_file_batch.function


def running(poll_after: float = 0.0) -> FileRun:
    return FileRun(status="EXECUTING", poll_after=poll_after)


def app_with(
    *names: str, options: dict[str, Any] | None = None, **variables: str
) -> tuple[FakeApp, dict[str, Any], dict[str, Any]]:
    """An application that was sent one batch of these files; the batch, and its headers."""
    app = FakeApp(settings=settings(**variables))
    files = [FileHash(file_name=name, source_connection_type="API", file_hash=f"hash-{name}") for name in names]
    known(app)
    fan_out(app.call(), request(**(options or {})), API, files, 1)
    sent = app.sent.pop()
    return app, sent.args[0], sent.headers


def test_files_end_with_their_own_ends_and_the_counts_are_right() -> None:
    app, batch, headers = app_with("good.txt", "bad.txt", "slow.txt")
    app.backend.plans = {
        "bad.txt": [FileRun(status="ERROR", error="cannot be read")],
        "slow.txt": [running(), running(), completed("slow")],
    }
    result = process(app.call(**headers), batch)
    assert (result["total_files"], result["successful_files"], result["failed_files"]) == (3, 2, 1)
    assert result["errors"] == {"bad.txt": "cannot be read"}
    assert app.backend.files == {"fe-good.txt": "COMPLETED", "fe-bad.txt": "ERROR", "fe-slow.txt": "COMPLETED"}
    pushed = app.pushed("api_results:wf:ex")
    assert [(item["file"], item["status"], item["error"]) for item in pushed] == [
        ("good.txt", "Success", None),
        ("bad.txt", "Failed", "cannot be read"),
        ("slow.txt", "Success", None),
    ]
    assert pushed[2]["result"] == {"text": "slow"}
    (callback,) = app.sent
    assert callback.args == [[result]]


def test_the_real_routes_lower_case_error_counts_the_same() -> None:
    app, batch, headers = app_with("a.txt")
    app.backend.plans = {"a.txt": [FileRun(status="error", error="no")]}
    assert process(app.call(**headers), batch)["failed_files"] == 1


def test_a_refusal_of_one_file_is_that_files_failure() -> None:
    app, batch, headers = app_with("a.txt", "b.txt")
    app.backend.plans = {"a.txt": [BackendRefusedError("400: no", 400)]}
    result = process(app.call(**headers), batch)
    assert (result["successful_files"], result["errors"]) == (1, {"a.txt": "400: no"})
    assert app.backend.files == {"fe-a.txt": "ERROR", "fe-b.txt": "COMPLETED"}
    assert [item["status"] for item in app.pushed("api_results:wf:ex")] == ["Failed", "Success"]


def test_a_run_that_was_never_accepted_is_sent_again() -> None:
    app, batch, headers = app_with("a.txt")
    app.backend.plans = {"a.txt": [running(), NotFoundError("unknown", 404), completed()]}
    assert process(app.call(**headers), batch)["successful_files"] == 1
    assert app.backend.calls.count("execute_file") == 2


def test_a_busy_backend_is_asked_again() -> None:
    app, batch, headers = app_with("a.txt")
    app.backend.plans = {"a.txt": [BackendBusyError("503", 0.0), completed()]}
    assert process(app.call(**headers), batch)["successful_files"] == 1


def test_a_redelivery_goes_on_where_the_first_delivery_was() -> None:
    app, batch, headers = app_with("a.txt", "b.txt", "c.txt")
    app.backend.plans = {"b.txt": [BackendUnavailableError("gone"), completed()]}
    with pytest.raises(BackendUnavailableError):
        process(app.call(**headers), batch)
    assert app.sent == []
    app.backend.calls.clear()
    result = process(app.call(**headers), batch)
    assert (result["total_files"], result["successful_files"]) == (3, 3)
    assert app.backend.calls.count("file_execution") == 2
    assert len(app.pushed("api_results:wf:ex")) == 3


def test_tools_that_ended_while_their_batch_waited_in_a_long_queue_are_not_thrown_away() -> None:
    app, batch, headers = app_with("a.txt")
    app.backend.plans = {"a.txt": [running(), completed()]}
    call = app.call(**headers)
    app.backend.on_call = lambda name: app.stopping.set() if name == "execute_file" else None
    with pytest.raises(HandBack):
        process(call, batch)
    app.stopping.clear()
    app.redis.hset("workers:execution:ex:started", "0/0/a.txt", str(time.time() - 2 * app.settings.file_deadline))
    assert process(app.call(**headers), batch)["successful_files"] == 1
    assert app.backend.calls.count("execute_file") == 1


def test_a_crash_between_status_and_memory_runs_nothing_twice() -> None:
    app, batch, headers = app_with("a.txt")
    process(app.call(**headers), batch)
    app.redis.delete("workers:execution:ex:files")
    app.backend.calls.clear()
    result = process(app.call(**headers), batch)
    assert (result["successful_files"], result["skipped_already_completed"]) == (1, 1)
    assert "execute_file" not in app.backend.calls
    assert len(app.pushed("api_results:wf:ex")) == 1


def test_what_cannot_be_reached_in_its_time_ends_and_the_rest_goes_on() -> None:
    app, batch, headers = app_with("a.txt", "b.txt", FILE_DEADLINE_SECONDS="60")
    app.state.begin_file("ex", "0/0/a.txt", time.time() - 61)
    app.backend.unreachable = {"fe-a.txt"}
    result = process(app.call(**headers), batch)
    assert (result["successful_files"], result["errors"]) == (1, {"a.txt": "away"})
    assert len(app.sent) == 1


def test_a_batch_hands_itself_back_while_the_tools_run_beyond_its_slice() -> None:
    app, batch, headers = app_with("a.txt", BATCH_SLICE_SECONDS="1", INTERNAL_API_TIMEOUT="0.5")
    app.backend.plans = {"a.txt": [running(poll_after=9)]}
    with pytest.raises(HandBack):
        process(app.call(**headers), batch)
    assert app.sent == []
    assert process(app.call(**headers), batch)["successful_files"] == 1


def test_a_batch_hands_itself_back_when_its_process_is_to_stop() -> None:
    app, batch, headers = app_with("a.txt", "b.txt")
    app.stopping.set()
    with pytest.raises(HandBack):
        process(app.call(**headers), batch)
    assert app.backend.calls == []


def test_a_file_that_takes_longer_than_a_file_may_ends_in_error() -> None:
    app, batch, headers = app_with("a.txt", "b.txt", FILE_DEADLINE_SECONDS="60")
    app.state.begin_file("ex", "0/0/a.txt", time.time() - 61)
    app.backend.plans = {"a.txt": [running()]}
    result = process(app.call(**headers), batch)
    assert result["errors"] == {"a.txt": "the file ran out of time"}
    assert app.backend.files == {"fe-a.txt": "ERROR", "fe-b.txt": "COMPLETED"}


def test_a_file_whose_time_ends_while_the_tools_run_says_where_it_went() -> None:
    app, batch, headers = app_with("a.txt", FILE_DEADLINE_SECONDS="60")
    app.state.begin_file("ex", "0/0/a.txt", time.time() - 59.7)
    app.backend.plans = {"a.txt": [running(poll_after=9)] * 2}
    result = process(app.call(**headers), batch)
    assert result["errors"] == {"a.txt": "the file ran out of time: waiting for the tools took 0.3 s"}


def test_the_tools_are_asked_by_the_sooner_of_the_files_and_the_deliverys_deadline() -> None:
    for seconds, expected in (("60", "the file"), ("3600", "task")):
        app, batch, headers = app_with("a.txt", FILE_DEADLINE_SECONDS=seconds)
        process(app.call(**headers), batch)
        assert [deadline.what for deadline in app.backend.deadlines] == [expected]


def test_a_batch_of_another_publisher_is_processed_and_returned() -> None:
    app, batch, _ = app_with("a.txt")
    app.backend.is_api = False
    app.redis.flushall()
    app.state.keep_context(Context(execution_id="ex", workflow_id="wf", organization_id="org", is_api=False))
    before = app.kept() | {"workers:execution:ex:look"}
    batch["files"] = [{"file_name": "b.txt", "source_connection_type": "FILESYSTEM"}]
    result = process(app.call(), batch)
    assert result["successful_files"] == 1
    assert app.sent == []
    assert app.kept() == before


def test_a_stopped_file_stays_stopped_and_counts_as_failed() -> None:
    app, batch, headers = app_with("a.txt")
    app.backend.files["fe-a.txt"] = Status.STOPPED
    result = process(app.call(**headers), batch)
    assert result["errors"] == {"a.txt": "the file was STOPPED already"}
    assert app.backend.files["fe-a.txt"] == Status.STOPPED


@pytest.mark.parametrize(
    "broken",
    [{}, {"files": []}, {"files": [["a.txt", {}]], "file_data": {"workflow_id": "", "execution_id": "e"}}, [], None],
)
def test_a_batch_that_cannot_be_read_is_refused_with_its_reason(broken: Any) -> None:
    with pytest.raises(PayloadError, match="not the contract's shape"):
        process(FakeApp().call(), broken)


def test_an_abandoned_batch_counts_what_has_ended_as_it_did() -> None:
    app, batch, headers = app_with("a.txt", "b.txt", "c.txt")
    app.backend.plans = {"b.txt": [FileRun(status="ERROR", error="broken")], "c.txt": [BackendUnavailableError("away")]}
    with pytest.raises(BackendUnavailableError):
        process(app.call(**headers), batch)
    process_file_batch.finalizer(app.call(**headers), RuntimeError("a bug"), batch)
    (callback,) = app.sent
    (result,) = callback.args[0]
    assert (result["total_files"], result["successful_files"], result["failed_files"]) == (3, 1, 2)
    assert result["errors"] == {"b.txt": "broken", "c.txt": "a bug"}


@pytest.mark.parametrize("payload", [None, {"files": "nonsense"}])
def test_an_unreadable_batch_still_reaches_the_fan_in_and_is_kept(payload: Any) -> None:
    app, _, headers = app_with("a.txt", "b.txt")
    process_file_batch.finalizer(app.call("process_file_batch", **headers), PayloadError("nonsense"), payload)
    kept, callback = app.sent
    assert (kept.queue, kept.args, kept.headers["kept_because"]) == (DEAD_LETTERS, [payload], "nonsense")
    assert callback.args[0][0]["total_files"] == 0


def test_a_run_that_completed_without_a_result_has_failed() -> None:
    app, batch, headers = app_with("a.txt")
    app.backend.plans = {"a.txt": [FileRun(status="COMPLETED")]}
    result = process(app.call(**headers), batch)
    assert result["errors"] == {"a.txt": "the tools ended without a result and without a reason"}
    assert app.pushed("api_results:wf:ex")[0]["status"] == "Failed"


@pytest.mark.parametrize("answer", [running(), BackendBusyError("503", 0.0), BackendBusyError("503", None)])
def test_a_backend_that_asks_for_no_wait_is_not_hammered(answer: Any) -> None:
    app, batch, headers = app_with("a.txt", BATCH_SLICE_SECONDS="1", INTERNAL_API_TIMEOUT="0.5")
    app.backend.plans = {"a.txt": [answer] * 1000}
    with pytest.raises(HandBack):
        process(app.call(**headers), batch)
    assert 2 <= len(app.backend.calls) <= 12


def test_unknown_arguments_are_logged_and_ignored() -> None:
    app, batch, headers = app_with("a.txt")
    with capture_logs() as logs:
        assert process(app.call(**headers), batch, call="x", added_later=None)["successful_files"] == 1
    assert [line["names"] for line in logs if line["event"] == "unknown_arguments"] == [["added_later", "call"]]


def test_a_file_that_the_history_has_is_pushed_without_its_tools() -> None:
    app, batch, headers = app_with("a.txt", "b.txt", options={"use_file_history": True})
    app.state.keep_cached("ex", {"hash-a.txt": {"result": '{"text": "remembered"}'}})
    result = process(app.call(**headers), batch)
    assert (result["successful_files"], app.backend.calls.count("execute_file")) == (2, 1)
    assert [item["result"]["text"] for item in app.pushed("api_results:wf:ex")] == ["remembered", "text"]
    assert list(app.backend.remembered) == ["hash-b.txt"]


@pytest.mark.parametrize(("text", "told"), [("plain words", "plain words"), ('{"a": 1}', {"a": 1})])
def test_what_the_history_has_comes_back_as_it_was(text: str, told: Any) -> None:
    app, batch, headers = app_with("a.txt", options={"use_file_history": True})
    app.state.keep_cached("ex", {"hash-a.txt": {"result": text}})
    process(app.call(**headers), batch)
    assert app.pushed("api_results:wf:ex")[0]["result"] == told


def test_only_what_succeeded_is_remembered_and_a_refusal_of_the_history_fails_nothing() -> None:
    app, batch, headers = app_with("a.txt", "b.txt", options={"use_file_history": True})
    app.backend.plans = {"a.txt": [FileRun(status="ERROR", error="broken")]}
    app.backend.refusals["remember_file"] = BackendRefusedError("400: no", 400)
    assert process(app.call(**headers), batch)["successful_files"] == 1
    assert app.backend.calls.count("remember_file") == 1
    assert app.backend.files == {"fe-a.txt": "ERROR", "fe-b.txt": "COMPLETED"}


def test_no_file_of_a_stopped_execution_starts() -> None:
    app, batch, headers = app_with("a.txt", "b.txt")
    app.redis.delete("workers:execution:ex:look")
    app.backend.status = "STOPPED"
    result = process(app.call(**headers), batch)
    assert app.backend.calls == ["execution"]
    assert set(result["errors"].values()) == {"the execution is STOPPED"}
    assert app.state.begin_file("ex", "0/0/a.txt", 1.0).stopped == "STOPPED"
    assert len(app.sent) == 1


def test_whether_it_was_stopped_is_asked_once_in_a_while_and_an_outage_stops_nothing() -> None:
    app, batch, headers = app_with(*"abcdef")
    app.redis.delete("workers:execution:ex:look")
    app.backend.refusals["execution"] = BackendUnavailableError("away")
    assert process(app.call(**headers), batch)["successful_files"] == 6
    assert app.backend.calls.count("execution") == 1


def test_a_condemned_batch_runs_no_tools_and_its_callers_are_told() -> None:
    app, batch, headers = app_with("a.txt", "b.txt")
    process_file_batch.finalizer(app.call(**headers), PoisonError("5 processes have died"), batch)
    assert "execute_file" not in app.backend.calls
    assert app.backend.files == {"fe-a.txt": "ERROR", "fe-b.txt": "ERROR"}
    assert [item["error"] for item in app.pushed("api_results:wf:ex")] == ["5 processes have died"] * 2
    assert app.sent[0].args[0][0]["failed_files"] == 2


def test_a_batch_whose_execution_was_lost_makes_it_known_again() -> None:
    app, batch, headers = app_with("a.txt")
    app.redis.flushall()
    assert process(app.call(**headers), batch)["successful_files"] == 1
    run = app.state.run("ex")
    assert run is not None
    assert (run.organization_id, run.batches, run.files, run.is_api) == ("org", 1, 1, True)
    assert len(app.sent) == 1


@pytest.mark.parametrize("status", ["COMPLETED", "ERROR"])
def test_a_batch_of_an_execution_that_has_ended_does_nothing(status: str) -> None:
    app, batch, headers = app_with("a.txt")
    app.redis.flushall()
    app.backend.status = status
    with pytest.raises(AlreadyDone):
        process(app.call(**headers), batch)
    assert app.backend.calls == ["execution"]
    assert app.kept() == set()


def test_a_batch_of_an_execution_that_was_deleted_does_nothing() -> None:
    app, batch, headers = app_with("a.txt")
    app.redis.flushall()
    app.backend.refusals["execution"] = NotFoundError("deleted", 404)
    with pytest.raises(AlreadyDone):
        process(app.call(**headers), batch)
    assert app.kept() == {"workers:execution:ex:ended"}


def test_under_a_lost_lease_nothing_is_written() -> None:
    app, batch, headers = app_with("a.txt")
    lease = app.claims.take(batch_work(app.call(**headers)))
    assert isinstance(lease, Lease)
    lease.lost = True
    with pytest.raises(LeaseLost):
        process(app.call(**headers).under(lease), batch)
    assert app.pushed("api_results:wf:ex") == []
    assert app.backend.files == {"fe-a.txt": ""}
