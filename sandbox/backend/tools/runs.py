"""Running the tools for one file, at most once (contract section 3).

The claim is a row, so it outlives the process: a second POST finds it. Its `instance` tells whether the process that
took it still lives; a claim of a dead one is taken over, and counted in `runs`.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction
from django.utils import timezone

from sandbox.backend.http import log
from sandbox.backend.models import COMPLETED, ERROR, EXECUTING, FileExecution, ToolRun
from sandbox.backend.sources import resolve_source
from sandbox.backend.staging import resolve_staged
from sandbox.backend.switches import switchboard
from sandbox.backend.tools import destination
from sandbox.backend.tools.pool import pool
from sandbox.backend.tools.process import ToolError
from sandbox.backend.views.workflows import ends


@dataclass(frozen=True)
class Job:
    """What a run needs to know; it is carried out after the request is answered."""

    file: FileExecution
    path: str
    mime_type: str | None


class StoppedError(Exception):
    """The server is stopping: the claim stays as it is, for the next process."""


def abandoned(run: ToolRun) -> bool:
    """Whether the process that held the claim is gone."""
    return bool(run.state == EXECUTING and run.instance != pool().instance)


def claim(file: FileExecution) -> bool:
    """Take the claim and set the file EXECUTING, in one transaction. False: it is taken, or the run is over."""
    with transaction.atomic():
        # The file's row is what two requests for a file that has no run yet can both lock. SQLite needs no lock on
        # a row: its transactions begin with one on everything.
        if connection.features.has_select_for_update:
            FileExecution.objects.select_for_update().get(pk=file.pk)
        run = ToolRun.objects.filter(pk=file.pk).first()
        now = timezone.now()
        if run is None:
            ToolRun.objects.create(file_execution=file, state=EXECUTING, instance=pool().instance, started_at=now)
        elif abandoned(run):
            run.instance, run.runs, run.started_at = pool().instance, run.runs + 1, now
            run.save()
            log.warning("file %s: started again, its process died (run %d)", file.pk, run.runs)
        else:
            return False
        FileExecution.objects.filter(pk=file.pk).update(status=EXECUTING, modified_at=now)
    return True


def instant() -> bool:
    """Whether the tool of the moment takes no time: then its request runs it, and no capacity is spoken of."""
    return switchboard.current.tool == "echo" and not switchboard.current.tool_seconds


def run_now(job: Job) -> None:
    """Run a claimed job in the calling thread."""
    try:
        _carry_out(job)
    except DatabaseError as error:
        _broken(job.file.pk, error)


def start(job: Job) -> None:
    """Run a claimed job in the place that was reserved for it."""
    key = job.file.pk
    pool().start(key, lambda: _in_thread(job), lambda error: _broken(key, error))


def _in_thread(job: Job) -> None:
    # A thread of the pool serves no requests, so nobody else looks whether its connection is still good.
    close_old_connections()
    _carry_out(job)


def _carry_out(job: Job) -> None:
    begun = time.monotonic()
    switches = switchboard.current
    if switches.tool_seconds and pool().stopping.wait(switches.tool_seconds):
        raise StoppedError
    try:
        result, metadata = _use_tool(job, switches.tool)
        outcome: dict[str, Any] = {"state": COMPLETED, "result": result, "metadata": metadata}
    except ToolError as error:
        outcome = {"state": ERROR, "error": str(error), "metadata": {"tool": switches.tool}}
    outcome["execution_time"] = round(time.monotonic() - begun, 3)
    if pool().stopping.is_set():
        raise StoppedError
    _finish(job, outcome)


def _use_tool(job: Job, tool: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result and what is known about it. `echo` reads nothing: it is for measuring everything but the tool."""
    metadata = {"tool": tool, "file_name": job.file.file_name}
    if tool == "echo":
        text = f"echo of {job.file.file_name}"
        counts = {"pages": 1, "words": len(text.split()), "characters": len(text)}
        result: dict[str, Any] = {"text": text, "mime_type": job.mime_type, **counts, "metadata": {}}
        return result, {**metadata, "file_hash": job.file.file_hash}
    path = _locate(job)
    result = pool().process().run(path, job.mime_type, settings.SANDBOX.tool_limit_seconds)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return result, {**metadata, "file_hash": digest}


def _locate(job: Job) -> Path:
    workflow = job.file.execution.workflow
    if workflow.workflow_type == "API":
        path = resolve_staged(workflow.organization, job.path)
    else:
        path = resolve_source(ends(workflow)["SOURCE"], job.path)
    if path is None:
        raise ToolError(f"there is no file {job.path!r}")
    return path


def _finish(job: Job, outcome: dict[str, Any]) -> None:
    """The end of the run and its row in the destination are one transaction: neither is there without the other."""
    workflow = job.file.execution.workflow
    table = None if workflow.workflow_type == "API" else destination.table_of(ends(workflow)["DESTINATION"])
    try:
        with transaction.atomic():
            if table and outcome["state"] == COMPLETED:
                destination.write(table, job.file.pk, job.file.file_name, outcome["result"])
            _settle(job.file.pk, outcome)
    except (DatabaseError, destination.TableError) as error:
        log.warning("file %s: the destination refused it: %s", job.file.pk, error)
        _settle(job.file.pk, {"state": ERROR, "error": f"destination: {error}", "metadata": {}})


def _settle(key: uuid.UUID, outcome: dict[str, Any]) -> None:
    ToolRun.objects.filter(pk=key, instance=pool().instance, state=EXECUTING).update(**outcome)


def _broken(key: uuid.UUID, error: BaseException) -> None:
    if isinstance(error, StoppedError):
        return
    log.error("file %s: the tool broke", key, exc_info=error)
    _settle(key, {"state": ERROR, "error": f"the tool broke: {type(error).__name__}: {error}", "metadata": {}})
