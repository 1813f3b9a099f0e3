"""The fold and the end of an execution."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callback.aggregation import verdict
from callback.tasks import process_batch_callback
from config.workers import orchestration_of
from shared.backend_models import FileExecution
from shared.errors import (
    BackendBusyError,
    BackendRefusedError,
    BackendUnavailableError,
    CircuitOpenError,
    NotFoundError,
    PayloadError,
    WorkerError,
)
from shared.models import BatchResult, Counts, FileHash, FileResult, PipelineStatus, Status
from shared.orchestration import fan_out, fold
from shared.platform_models import Notification
from shared.transitions import may_become
from tests.fakes import FakeApp, FakeBackend, known, request

run = process_batch_callback.function


def batch(good: int, bad: int = 0) -> dict[str, Any]:
    results = [FileResult(file=f"g{n}", status=Status.COMPLETED) for n in range(good)]
    results += [FileResult(file=f"b{n}", status=Status.ERROR, error="broken") for n in range(bad)]
    return fold(results, "org").model_dump(mode="json")


@pytest.mark.parametrize(
    ("results", "total", "status", "counts", "message"),
    [
        ([], 0, "COMPLETED", (0, 0, 0), None),
        ([batch(2), batch(1)], 3, "COMPLETED", (3, 3, 0), None),
        ([batch(1, 1)], 2, "COMPLETED", (2, 1, 1), None),
        ([batch(0, 2)], 2, "ERROR", (2, 0, 2), "all 2 files failed; b0: broken"),
        ([batch(1)], 3, "COMPLETED", (3, 1, 2), "2 of 3 files have no result and count as failed"),
        ([], 3, "ERROR", (3, 0, 3), "3 of 3 files have no result and count as failed; all 3 files failed"),
        (
            [batch(1), None, "junk", {"total_files": "x"}],
            2,
            "COMPLETED",
            (2, 1, 1),
            "1 of 2 files have no result and count as failed",
        ),
        ([batch(2)], 0, "COMPLETED", (2, 2, 0), None),
        ([batch(5)], 3, "COMPLETED", (3, 3, 0), None),
        (
            [{"total_files": 1, "successful_files": -5, "failed_files": 0}],
            1,
            "ERROR",
            (1, 0, 1),
            "1 of 1 files have no result and count as failed; all 1 files failed",
        ),
    ],
)
def test_the_verdict(results: list[Any], total: int, status: str, counts: tuple[int, ...], message: str | None) -> None:
    found = verdict(results, total, None)
    assert (found.status, found.counts, found.message) == (status, Counts(*counts), message)


def test_a_failure_before_the_files_is_an_error_with_its_reason() -> None:
    found = verdict([], 4, "the tools are not valid")
    assert (found.status, found.counts) == (Status.ERROR, Counts(4, 0, 4))
    assert found.message == "the tools are not valid"


@given(sizes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8), extra=st.integers(0, 5))
def test_counts_always_add_up(sizes: list[tuple[int, int]], extra: int) -> None:
    known = sum(good + bad for good, bad in sizes)
    counts = verdict([batch(*size) for size in sizes], known + extra, None).counts
    assert counts.total_files == known + extra == counts.successful_files + counts.failed_files


def end(app: FakeApp, results: Any) -> dict[str, Any]:
    answer: dict[str, Any] = run(
        app.call(), results, execution_id="ex", organization_id="org", pipeline_id="pipe", unknown=1
    )
    return answer


def test_an_api_execution_ends_with_status_and_counts_in_one_write() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=3))
    assert end(app, [batch(2), batch(0, 1)]) == {"status": "COMPLETED", "execution_id": "ex"}
    assert app.backend.ended == (Status.COMPLETED, Counts(3, 2, 1), None)
    assert app.backend.calls == ["execution", "end_execution", "pipeline_notifications"]


@pytest.mark.parametrize(("results", "pipeline"), [([batch(1)], "SUCCESS"), ([batch(0, 1)], "FAILURE")])
def test_a_pipeline_ends_with_its_execution(results: Any, pipeline: PipelineStatus) -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=1, is_api=False))
    end(app, results)
    assert app.backend.pipeline == pipeline


@pytest.mark.parametrize("away", [CircuitOpenError("not asked", 0.1), BackendBusyError("503", 1.0)])
def test_a_buffer_that_is_away_for_long_drops_no_notification(away: WorkerError) -> None:
    hook = Notification(id="n", url="https://hooks.invalid", is_active=True, authorization_type="NONE")
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=1, notifications=[hook]))
    known(app)
    app.backend.refusals["enqueue_notification"] = away
    for _ in range(20):
        with pytest.raises(type(away)):
            end(app, [batch(1)])
    app.backend.refusals.clear()
    end(app, [batch(1)])
    assert [event.notification_id for event in app.backend.told] == ["n"]


def test_an_execution_ends_though_its_pipeline_was_deleted() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=1, is_api=False))
    app.backend.refusals["pipeline_status"] = NotFoundError("404", 404)
    known(app, is_api=False)
    assert end(app, [batch(1)])["status"] == "COMPLETED"
    assert app.kept() == {"workers:execution:ex:ended"}


@pytest.mark.parametrize(("status", "pipeline"), [("COMPLETED", "SUCCESS"), ("STOPPED", "FAILURE")])
def test_a_second_delivery_writes_no_status_but_finishes_the_rest(status: str, pipeline: str) -> None:
    app = FakeApp(backend=FakeBackend(status=status, total_files=1, is_api=False))
    known(app, is_api=False)
    assert end(app, [batch(0, 1)])["status"] == status
    assert app.backend.ended is None
    assert app.backend.pipeline == pipeline


def running(batches: int) -> FakeApp:
    """An execution whose files are in that many batches, of which none has ended."""
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=2))
    known(app, batches=batches, files=2)
    return app


def test_a_stray_callback_does_not_end_a_running_execution() -> None:
    app = running(batches=2)
    app.state.record_batch("ex", 0, BatchResult.model_validate(batch(1)))
    assert end(app, [batch(0, 2)])["status"] == "ignored"
    (kept,) = app.sent
    assert "1 of 2 batches" in kept.headers["kept_because"]
    assert app.backend.ended is None


def test_of_an_execution_without_files_the_callback_may_come_before_its_start_has_ended() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=0))
    known(app, batches=0)
    app.claims.take(app.state.claim("ex", "orchestration"))
    assert end(app, [])["status"] == "COMPLETED"


def test_a_stray_callback_does_not_end_an_execution_that_is_being_started() -> None:
    app = FakeApp(backend=FakeBackend(status="PENDING"))
    known(app)
    app.claims.take(app.state.claim("ex", "orchestration"))
    assert end(app, [])["status"] == "ignored"
    assert app.backend.ended is None


def test_what_the_batches_recorded_counts_and_not_what_the_message_says() -> None:
    app = running(batches=1)
    app.state.record_batch("ex", 0, BatchResult.model_validate(batch(2)))
    end(app, ["garbage", batch(9)])
    assert app.backend.ended == (Status.COMPLETED, Counts(2, 2, 0), None)


def test_an_execution_that_ended_meanwhile_keeps_its_end() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=1, is_api=False, stopped_meanwhile=True))
    assert end(app, [batch(1)])["status"] == "STOPPED"
    assert app.backend.pipeline == "FAILURE"


def test_of_a_deleted_execution_nothing_is_kept() -> None:
    app = FakeApp()
    app.state.fail("ex", "reason")
    app.backend.refusals["execution"] = NotFoundError("deleted", 404)
    assert end(app, [])["status"] == "DELETED"
    assert app.kept() == {"workers:execution:ex:ended"}


def test_the_executions_own_pipeline_counts_where_the_message_names_none() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=1, is_api=False, pipeline_id="own"))
    run(app.call(), [batch(1)], execution_id="ex", organization_id="org")
    assert app.backend.pipeline == "SUCCESS"


def test_the_kept_reason_is_written_and_nothing_is_left() -> None:
    app = FakeApp(backend=FakeBackend(total_files=2))
    app.state.fail("ex", "no tools")
    app.state.fail("ex", "a later reason")
    end(app, None)
    assert app.backend.ended == (Status.ERROR, Counts(2, 0, 2), "no tools")
    assert app.state.known("ex").failure is None


def test_a_callback_without_an_execution_is_refused() -> None:
    with pytest.raises(PayloadError, match="execution_id"):
        run(FakeApp().call(), [], organization_id="org")


def reaped(app: FakeApp) -> dict[str, Any]:
    answer: dict[str, Any] = run(
        app.call(reaped="it did not end within 10 s"), [], execution_id="ex", organization_id="org", pipeline_id="pipe"
    )
    return answer


def rows(*statuses: str) -> list[FileExecution]:
    return [FileExecution(id=f"fe-{n}", file_name=f"{n}.txt", status=status) for n, status in enumerate(statuses)]


def test_the_reaper_ends_an_execution_from_the_backends_rows() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=4, rows=rows("COMPLETED", "ERROR", "EXECUTING")))
    app.backend.files = {"fe-2": "EXECUTING"}
    known(app, batches=2, files=4)
    assert reaped(app)["status"] == "COMPLETED"
    assert app.backend.ended is not None
    status, counts, message = app.backend.ended
    assert (status, counts) == (Status.COMPLETED, Counts(4, 1, 3))
    assert message == "1 of 4 files have no result and count as failed; it did not end within 10 s"
    assert app.backend.files == {"fe-2": "ERROR"}
    (told,) = app.pushed("api_results:wf:ex")
    assert (told["file"], told["status"], told["error"]) == ("2.txt", "Failed", "it did not end within 10 s")
    assert app.kept() == {"api_results:wf:ex", "workers:execution:ex:ended"}


def test_the_caller_hears_of_files_that_never_had_a_row() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=2, rows=rows("COMPLETED")))
    known(app)
    files = [FileHash(file_name=f"{number}.txt") for number in range(2)]
    fan_out(app.call(), request(), orchestration_of(is_api=True), files, 2)
    assert reaped(app)["status"] == "COMPLETED"
    (told,) = app.pushed("api_results:wf:ex")
    assert (told["file"], told["file_execution_id"], told["status"]) == ("1.txt", None, "Failed")


def test_an_execution_without_any_row_has_not_succeeded() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=0))
    known(app)
    assert reaped(app)["status"] == "ERROR"
    assert app.backend.ended == (Status.ERROR, Counts(0, 0, 0), "it did not end within 10 s")


@pytest.mark.parametrize(
    ("status", "found", "ends"),
    [("ERROR", "COMPLETED", "COMPLETED"), ("ERROR", "ERROR", "ERROR"), ("STOPPED", "COMPLETED", "STOPPED")],
)
def test_an_error_may_prove_wrong_and_nothing_else_that_is_final(status: str, found: str, ends: str) -> None:
    app = FakeApp(backend=FakeBackend(status=status, total_files=1, rows=rows(found), terminal_may_change=True))
    known(app, batches=1, files=1)
    assert reaped(app)["status"] == ends
    assert (app.backend.ended is not None) is (ends != status)


def test_every_pair_of_statuses_is_decided() -> None:
    def allowed(*, reaping: bool) -> set[tuple[str, str]]:
        return {(now, then) for now in Status for then in Status if may_become(now, then, reaping=reaping)}

    ends = {"COMPLETED", "ERROR", "STOPPED", "EXECUTING"}
    assert allowed(reaping=False) == {(now, then) for now in ("PENDING", "EXECUTING") for then in ends}
    assert allowed(reaping=True) == allowed(reaping=False) | {("ERROR", "COMPLETED")}
    assert may_become("a word of nobody", Status.EXECUTING)


def listener(name: str, **fields: Any) -> Notification:
    said = {"url": f"https://hooks.invalid/{name}", "authorization_type": "BEARER", "authorization_key": "s3cret"}
    return Notification.model_validate({"id": name, "is_active": True, "platform": "API", **said, **fields})


def listened(*listeners: Notification) -> FakeApp:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=1, notifications=list(listeners)))
    known(app)
    return app


def test_each_webhook_is_told_once_with_a_key_of_its_own() -> None:
    app = listened(listener("one"), listener("off", is_active=False), listener("two", platform="SLACK"))
    end(app, [batch(1)])
    told = [(event.notification_id, event.status, event.type, event.pipeline_name) for event in app.backend.told]
    assert told == [("one", "COMPLETED", "ETL", "notes"), ("two", "COMPLETED", "ETL", "notes")]
    keys = [(event.additional_data or {})["idempotency_key"] for event in app.backend.told]
    assert keys == ["ex:one", "ex:two"]


def test_a_delivery_that_died_between_two_webhooks_goes_on_with_the_second() -> None:
    app = listened(listener("one"), listener("two"))
    app.state.begin_notification("ex", "one")
    app.state.notified("ex", "one")
    end(app, [batch(1)])
    assert [event.notification_id for event in app.backend.told] == ["two"]


def test_what_cannot_be_told_after_many_tries_is_given_up() -> None:
    app = listened(listener("one"))
    for _ in range(5):
        app.state.begin_notification("ex", "one")
    end(app, [batch(1)])
    assert app.backend.told == []
    assert app.kept() == {"workers:execution:ex:ended"}


@pytest.mark.parametrize("error", [BackendRefusedError("400: no", 400), NotFoundError("404: no buffer", 404)])
def test_a_webhook_that_the_buffer_does_not_take_is_dropped_or_sent_by_us(error: BackendRefusedError) -> None:
    app = listened(listener("one", max_retries=4))
    app.backend.refusals["enqueue_notification"] = error
    end(app, [batch(1)])
    if error.status == 400:
        assert app.sent == []
        return
    (sent,) = app.sent
    assert (sent.task, sent.queue) == ("send_webhook_notification", "notifications")
    assert (sent.args[0], sent.args[2]["Authorization"]) == ("https://hooks.invalid/one", "Bearer s3cret")
    assert sent.kwargs["max_retries"] == 4
    assert sent.kwargs["idempotency_key"] == sent.args[1]["idempotency_key"] == "ex:one"


def test_an_outage_while_telling_leaves_everything_for_the_next_delivery() -> None:
    app = listened(listener("one"))
    app.backend.refusals["enqueue_notification"] = BackendUnavailableError("away")
    with pytest.raises(BackendUnavailableError):
        end(app, [batch(1)])
    app.backend.refusals.clear()
    assert end(app, [batch(1)])["status"] == "COMPLETED"
    assert len(app.backend.told) == 1
    assert app.backend.calls.count("end_execution") == 1


def test_a_second_callback_of_what_has_ended_tells_nobody() -> None:
    app = listened(listener("one"))
    end(app, [batch(1)])
    app.redis.flushall()
    assert end(app, [batch(1)])["status"] == "COMPLETED"
    assert len(app.backend.told) == 1


def test_nobody_comes_after_the_callback_so_it_is_tried_for_ever() -> None:
    """However long the backend is away or its circuit open: see the seam's own tests for what patience does."""
    assert process_batch_callback.patience == math.inf
