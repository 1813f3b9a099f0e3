"""The fold and the end of an execution."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callback.aggregation import verdict
from callback.tasks import process_batch_callback
from file_processing.batch import fold
from shared.errors import NotFoundError, PayloadError
from shared.execution_state import FanIn
from shared.models import BatchResult, Counts, FileResult, PipelineStatus, Status
from tests.fakes import FakeApp, FakeBackend

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
    assert app.backend.calls == ["execution", "end_execution"]


@pytest.mark.parametrize(("results", "pipeline"), [([batch(1)], "SUCCESS"), ([batch(0, 1)], "FAILURE")])
def test_a_pipeline_ends_with_its_execution(results: Any, pipeline: PipelineStatus) -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=1, is_api=False))
    end(app, results)
    assert app.backend.pipeline == pipeline


@pytest.mark.parametrize(("status", "pipeline"), [("COMPLETED", "SUCCESS"), ("STOPPED", "FAILURE")])
def test_a_second_delivery_writes_no_status_but_finishes_the_rest(status: str, pipeline: str) -> None:
    app = FakeApp(backend=FakeBackend(status=status, total_files=1, is_api=False))
    assert end(app, [batch(0, 1)])["status"] == status
    assert app.backend.ended is None
    assert app.backend.pipeline == pipeline


def running(batches: int) -> FakeApp:
    """An execution whose files are in that many batches, of which none has ended."""
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=2))
    app.state.open_fan_in("ex", FanIn(batches, 2, "t", "q", {}, "task"))
    return app


def test_a_stray_callback_does_not_end_a_running_execution() -> None:
    app = running(batches=2)
    app.state.record_batch("ex", 0, BatchResult.model_validate(batch(1)))
    with pytest.raises(PayloadError, match="1 of 2 batches"):
        end(app, [batch(0, 2)])
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
    with pytest.raises(NotFoundError):
        end(app, [])
    assert app.state.failure("ex") is None


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
    assert app.state.failure("ex") is None


def test_a_callback_without_an_execution_is_refused() -> None:
    with pytest.raises(PayloadError, match="execution_id"):
        run(FakeApp().call(), [], organization_id="org")
