"""Batches and their files, over the fakes: every way a file can end, and where a later delivery goes on."""

import time
from typing import Any

import pytest

from config.workers import orchestration_of
from file_processing.tasks import process_file_batch
from shared.errors import (
    BackendBusyError,
    BackendRefusedError,
    BackendUnavailableError,
    NotFoundError,
    PayloadError,
)
from shared.models import FileHash, FileRun, Status
from shared.orchestration import fan_out
from shared.task import HandBack
from tests.fakes import FakeApp, completed, request, settings

API = orchestration_of(is_api=True)
process = process_file_batch.function


def running(poll_after: float = 0.0) -> FileRun:
    return FileRun(status="EXECUTING", poll_after=poll_after)


def app_with(*names: str, **variables: str) -> tuple[FakeApp, dict[str, Any], dict[str, Any]]:
    """An application that was sent one batch of these files; the batch, and its headers."""
    app = FakeApp(settings=settings(**variables))
    files = [FileHash(file_name=name, source_connection_type="API") for name in names]
    fan_out(app.call(), request(), API, files, 1)
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
    pushed = app.state.results["api_results:wf:ex"]
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
    assert [item["status"] for item in app.state.results["api_results:wf:ex"]] == ["Failed", "Success"]


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
    assert len(app.state.results["api_results:wf:ex"]) == 3


def test_a_crash_between_status_and_memory_runs_nothing_twice() -> None:
    app, batch, headers = app_with("a.txt")
    process(app.call(**headers), batch)
    app.state.files.clear()
    app.backend.calls.clear()
    result = process(app.call(**headers), batch)
    assert (result["successful_files"], result["skipped_already_completed"]) == (1, 1)
    assert "execute_file" not in app.backend.calls
    assert len(app.state.results["api_results:wf:ex"]) == 1


def test_the_last_attempt_ends_what_cannot_be_reached() -> None:
    app, batch, headers = app_with("a.txt", "b.txt")
    app.backend.plans = {"a.txt": [BackendUnavailableError("gone for good")]}
    result = process(app.call(last=True, **headers), batch)
    assert (result["successful_files"], result["errors"]) == (1, {"a.txt": "gone for good"})
    assert len(app.sent) == 1


def test_a_batch_hands_itself_back_while_the_tools_run_beyond_its_slice() -> None:
    app, batch, headers = app_with("a.txt", BATCH_SLICE_SECONDS="1", INTERNAL_API_TIMEOUT="0.5")
    app.backend.plans = {"a.txt": [running(poll_after=9)]}
    with pytest.raises(HandBack):
        process(app.call(**headers), batch)
    assert app.sent == []
    assert process(app.call(**headers), batch)["successful_files"] == 1


def test_a_file_that_takes_longer_than_a_file_may_ends_in_error() -> None:
    app, batch, headers = app_with("a.txt", "b.txt", FILE_DEADLINE_SECONDS="60")
    app.state.file_started("ex", "0/0", time.time() - 61)
    app.backend.plans = {"a.txt": [running()]}
    result = process(app.call(**headers), batch)
    assert result["errors"] == {"a.txt": "the file ran out of time"}
    assert app.backend.files == {"fe-a.txt": "ERROR", "fe-b.txt": "COMPLETED"}


def test_a_batch_of_another_publisher_is_processed_and_returned() -> None:
    app, batch, _ = app_with("a.txt")
    batch["files"] = [{"file_name": "b.txt", "source_connection_type": "FILESYSTEM"}]
    result = process(app.call(), batch)
    assert result["successful_files"] == 1
    assert app.sent == []
    assert app.state.results == {}


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


@pytest.mark.parametrize("payload", ["as sent", None, {"files": "nonsense"}])
def test_an_abandoned_batch_still_reaches_the_fan_in(payload: Any) -> None:
    app, batch, headers = app_with("a.txt", "b.txt")
    broken = batch if payload == "as sent" else payload
    process_file_batch.finalizer(app.call(**headers), RuntimeError("a bug"), broken)
    (callback,) = app.sent
    (result,) = callback.args[0]
    assert result["successful_files"] == 0
    assert result["failed_files"] == (2 if payload == "as sent" else 0)
