"""The ways of documents through the platform that `workers demo` shows: by messages and four workers, or as a workflow.

Each gives what is written by `--output`: `{summary, files: [{file, status, result, error, seconds}]}`.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.demo_view import View
from sandbox.driver import LONGEST_RUN_SECONDS, Driver
from sandbox.stack import Stack, StackError
from shared.config import ClientSettings
from shared.logging_utils import configure_logging
from shared.workflows.client import TaskClient, client_of
from shared.workflows.errors import RunCancelledError, RunFailedError
from shared.workflows.shape import RunStatus, StepState
from shared.workflows.views import PROGRESS, Event

_WORKFLOW = "document-processing"
_MODULE = "sandbox.workflows.document_processing"
_LOOK_SECONDS = 0.1
_PAGE = "#"  # behind it stands which page of a document a row is of; no name that is sent has one
_ENDS = {RunStatus.SUCCEEDED: "COMPLETED", RunStatus.FAILED: "ERROR", RunStatus.CANCELLED: "STOPPED"}


@dataclass(frozen=True, slots=True)
class Demo:
    """What both ways need.

    Attributes:
        documents: by the names they go under.
        batches: that they are spread over, on the way by messages.
        begun: when the demo began, on the monotonic clock.
    """

    stack: Stack
    driver: Driver
    view: View
    documents: Mapping[str, Path]
    batches: int
    begun: float


def by_messages(demo: Demo) -> dict[str, Any]:
    """All documents as the files of one execution, which the workers are told of."""
    driver, ready = demo.driver, time.monotonic() - demo.begun
    deployment = driver.deploy("demo", demo.batches)
    run = driver.post(deployment, demo.documents)
    demo.view.say(f"{len(demo.documents)} documents posted to {demo.stack.backend_url}{deployment.path}")
    with demo.view.watching():
        for seen in driver.watch(run):
            demo.view.update(seen.states())
    results = driver.results(deployment, run)
    missing = {"status": "ERROR", "execution_error": run.execution.get("error_message") or "it was never started"}
    files = []
    for name in demo.documents:
        given = results.get(name, {})
        files.append(_row(name, run.files.get(name, missing), given.get("result"), given.get("error")))
    summary = {
        "execution_id": run.execution_id,
        "status": run.execution["status"],
        "error": run.execution.get("error_message") or None,
        **{name: run.execution[name] for name in ("total_files", "successful_files", "failed_files")},
        **_asked(driver, {run.execution_id: run.names}),
        "stages": _stages(run.stages, ready),
        "wall_seconds": round(time.monotonic() - demo.begun, 3),
    }
    demo.view.finish(f"execution {run.execution_id}", files, summary)
    return {"summary": summary, "files": files}


def settings_of(engine: str) -> dict[str, str]:
    """What whoever runs or starts the workflow finds in its environment."""
    return {"WORKFLOW_MODULES": _MODULE, "TASK_QUEUE_BACKEND": engine}


@dataclass(slots=True)
class _Watched:
    """The run of one document. `sent` is the name it was sent under, `seen` the last event that was seen."""

    run_id: str
    execution_id: str
    sent: str
    seen: str | None = None


def by_workflow(demo: Demo, engine: str) -> dict[str, Any]:
    """Each document as a run of its own."""
    driver, ready = demo.driver, time.monotonic() - demo.begun
    deployment = driver.deploy("demo", demo.batches)
    with _client(demo.stack, engine) as client:
        runs = {}
        for name, path in demo.documents.items():
            staged = driver.stage(deployment, name, path)
            key = staged["execution_id"]
            run_id = client.start_workflow(_WORKFLOW, staged, run_key=key, organization_id=deployment.organization_id)
            runs[name] = _Watched(run_id, key, staged["file"]["file_name"])
        demo.view.say(f"{len(runs)} runs of workflow {_WORKFLOW} started, engine {engine}")
        with demo.view.watching():
            _watch(demo, client, runs)
        files = [_ended(name, run, driver, client) for name, run in runs.items()]
    succeeded = sum(row["status"] == "COMPLETED" for row in files)
    wall = time.monotonic() - demo.begun
    summary = {
        "workflow": _WORKFLOW,
        "engine": engine,
        "status": "COMPLETED" if succeeded else "ERROR",
        "total_files": len(files),
        "successful_files": succeeded,
        "failed_files": len(files) - succeeded,
        **_asked(driver, {run.execution_id: {run.sent: name} for name, run in runs.items()}),
        "stages": {"start": round(ready, 3), "runs": round(wall - ready, 3)},
        "wall_seconds": round(wall, 3),
    }
    demo.view.finish(f"workflow {_WORKFLOW}, engine {engine}", files, summary)
    return {"summary": summary, "files": files}


@contextmanager
def _client(stack: Stack, engine: str) -> Iterator[TaskClient]:
    """The client of this process, which from here on has the environment of a worker."""
    os.environ.update(stack.environment(**settings_of(engine)))
    # What steps say in this process would stand in the middle of the view.
    configure_logging("ERROR", "auto")
    with client_of(ClientSettings.load()) as client:
        yield client


def _watch(demo: Demo, client: TaskClient, runs: Mapping[str, _Watched]) -> None:
    """Show every change of every run, until all have ended.

    Raises:
        StackError: they did not in time, or a part of the stack ended.
    """
    until, left = time.monotonic() + LONGEST_RUN_SECONDS, dict(runs)
    while left:
        if time.monotonic() > until:
            raise StackError(f"{len(left)} runs have not ended within {LONGEST_RUN_SECONDS:g} s")
        demo.stack.check()
        for name, run in tuple(left.items()):
            for event in client.engine.events(run.run_id, run.seen, 0):
                run.seen = event.id
                told = _told(event)
                demo.view.update({name: told} if told else {})
                if event.last:
                    del left[name]
        time.sleep(_LOOK_SECONDS)


def _told(event: Event) -> str | None:
    """An event in a few words; None of those that another one follows at once."""
    if event.step is None:
        return _ENDS.get(RunStatus(event.state), "started")
    step = event.step if event.index is None else f"{event.step} {event.index + 1}"
    if event.state == PROGRESS:
        return f"{step}: {event.message}"
    if event.state in {StepState.RETRYING, StepState.FAILED}:
        return f"{step} {event.state}: {event.reason}"
    return step if event.state == StepState.RUNNING else None


def _ended(name: str, run: _Watched, driver: Driver, client: TaskClient) -> dict[str, Any]:
    """What the run has given, and what the backend says of the document, beside its pages."""
    rows = driver.control("GET", f"executions/{run.execution_id}/")["files"]
    row = next((row for row in rows if row["file_name"] == run.sent), {"status": "ERROR"})
    try:
        return _row(name, row, client.result(run.run_id)["store"], None)
    except RunFailedError as failed:
        return _row(name, row, None, row.get("execution_error") or failed.reason)
    except RunCancelledError as cancelled:
        return _row(name, row, None, str(cancelled))


def _row(name: str, row: Mapping[str, Any], result: Any, error: str | None) -> dict[str, Any]:
    return {
        "file": name,
        "status": row["status"],
        "result": result,
        "error": error or row.get("execution_error") or None,
        "seconds": round(row.get("execution_time") or 0.0, 3),
    }


def _asked(driver: Driver, executions: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What the backend was asked for, and how often it ran its tools on each document, or page of one.

    Args:
        driver: the user of the backend.
        executions: by their ids, the names that documents were sent under and those they were given by.
    """
    stats = driver.control("GET", "stats")
    runs = {}
    for execution in driver.control("GET", "evidence")["executions"]:
        names = executions.get(execution["id"], {})
        for file in execution["files"] if names else ():
            name, _, page = file["name"].partition(_PAGE)
            runs[names[name] + (_PAGE + page if page else "")] = file["runs"]
    return {"http_requests": stats["http_requests"], "polls": stats["polls"], "tool_runs": runs}


def _stages(seen: Mapping[str, float], start: float) -> dict[str, float]:
    """Where the time went: each stage's own seconds, in their order."""
    stages = {"start": start}
    before = 0.0
    for stage, name in (
        ("started", "to the orchestrator"),
        ("first file", "to the first file"),
        ("last file", "files"),
        ("ended", "callback"),
    ):
        at = seen.get(stage, before)
        stages[name] = at - before
        before = at
    return {name: round(seconds, 3) for name, seconds in stages.items()}
