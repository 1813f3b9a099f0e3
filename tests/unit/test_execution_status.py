"""What `workers status` makes of what it sees."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.backend_models import ExecutionRow, FileExecution
from shared.commands.execution_status import Seen, lines, waits_for
from shared.execution_state import Run
from shared.models import Stage

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RUN = Run("ex", "org", "wf", "pipe", is_api=True, deadline=NOW.timestamp() + 60, batches=3, files=6)


def seen(status: str = "EXECUTING", **known: Any) -> Seen:
    row = ExecutionRow(
        id="ex",
        workflow_id="wf",
        status=status,
        total_files=3,
        error_message=known.pop("error", None),
        created_at=NOW - timedelta(seconds=90),
    )
    return Seen(row=row, **known)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (seen("COMPLETED"), "nothing: it has ended"),
        (
            seen("COMPLETED", run=RUN),
            "its callback in api_file_processing_callback, which goes on with its notifications",
        ),
        (seen("ERROR", run=RUN, ending=True), "its callback, which a worker is at"),
        (seen("PENDING"), "a worker that takes its message from celery_api_deployments"),
        (seen("PENDING", is_api=False), "a worker that takes its message from celery;"),
        (seen("PENDING", run=RUN, starting=True), "its start: a worker is collecting its files"),
        (
            seen("PENDING", is_api=False, run=Run("ex", "org", "wf", None, is_api=False)),
            "its message waits in celery to be tried again",
        ),
        (seen(run=RUN, failure="no tools"), "its callback in api_file_processing_callback, which ends it: no tools"),
        (seen(run=RUN), "its callback in api_file_processing_callback"),
        (seen(run=RUN, missing={0: True, 2: False}), "2 of 3 batches: 1 (0) at work, 1 (2) in api_file_processing"),
        (
            seen(run=RUN, missing=dict.fromkeys(range(7), False)),
            "7 of 3 batches: 7 (0, 1, 2, 3, 4, …) in api_file_processing",
        ),
    ],
)
def test_it_says_what_an_execution_waits_for(found: Seen, said: str) -> None:
    assert said in waits_for(found)


def test_it_shows_every_file_with_its_stage_or_its_end_and_why() -> None:
    files = [
        FileExecution(id="1", status="COMPLETED", file_name="a.txt", execution_time=0.52),
        FileExecution(id="2", status="ERROR", file_name="b.pdf", execution_error="the document is encrypted"),
        FileExecution(id="3", status="EXECUTING", file_name="c.txt"),
    ]
    stages = {"0/0/a.txt": Stage.DONE, "1/0/c.txt": Stage.STORING, "1/1/d/e.txt": Stage.QUEUED}
    shown = list(lines(seen(run=RUN, files=files, stages=stages, missing={1: True}), NOW))
    assert shown[0] == "ex  EXECUTING  (API deployment unknown, workflow wf, created 90 s ago)"
    assert shown[1:4] == [
        "waits for  1 of 3 batches: 1 (1) at work",
        "deadline   in 60 s",
        "files      2 of 3 have ended",
    ]
    assert [" ".join(line.split()) for line in shown[4:]] == [
        "a.txt COMPLETED 0.5 s",
        "b.pdf ERROR the document is encrypted",
        "c.txt storing",
        "d/e.txt queued",
    ]
    assert "error      it was stopped" in list(lines(seen("STOPPED", error="it was stopped"), NOW))
