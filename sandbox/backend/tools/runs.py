"""Running the tools for one file, at most once.

The claim is a row, so it outlives the process: a second POST finds it. Its `instance` tells whether the process that
took it still lives; a claim of a dead one is taken over, and counted in `runs`.
"""

from __future__ import annotations

import functools
import hashlib
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, Error, close_old_connections, connection, transaction
from django.utils import timezone

from sandbox.backend.http import log
from sandbox.backend.models import COMPLETED, ERROR, EXECUTING, FileExecution, ToolRun
from sandbox.backend.sources import resolve_source
from sandbox.backend.staging import resolve_staged
from sandbox.backend.switches import switchboard
from sandbox.backend.tools import destination, pages
from sandbox.backend.tools.pool import pool
from sandbox.backend.tools.process import ToolError

# Between two attempts to write the end of a run to a database that is away.
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """What a run needs to know; it is carried out after the request is answered. `path` is None without a document,
    `table` without a destination, `page` for the whole document."""

    key: uuid.UUID
    file_name: str
    file_hash: str | None
    mime_type: str | None
    path: Path | None
    table: str | None
    page: int | None


def job_of(file: FileExecution, file_data: dict[str, Any], page: int | None) -> Job:
    """The job of a file execution; `file_data` is what the worker knows of the file.

    With a page, the name and the path may say which behind a `#page=`, so that each page has a row of its own.
    """
    mark = pages.mark(page)
    name, given = file.file_name.removesuffix(mark), (file_data.get("file_path") or "").removesuffix(mark)
    workflow = file.execution.workflow
    if workflow.workflow_type == "API":
        path, table = resolve_staged(workflow.organization, given), None
    else:
        ends = workflow.ends()
        path, table = resolve_source(ends["SOURCE"], given), ends["DESTINATION"].configuration["table"]
    # The destination has a row for each document, and not for its pages.
    table = table if page is None else None
    return Job(file.pk, name, file.file_hash, file_data.get("mime_type"), path, table, page)


def abandoned(run: ToolRun) -> bool:
    """Whether the process that held the claim is gone."""
    return bool(run.state == EXECUTING and run.instance != pool().instance)


def claim(key: uuid.UUID) -> bool:
    """Take the claim and set the file EXECUTING, in one transaction. False: it is taken, or the run is over."""
    with transaction.atomic():
        # The file's row is what two requests for a file that has no run yet can both lock.
        file = FileExecution.objects.select_for_update().get(pk=key)
        run = ToolRun.objects.filter(pk=key).first()
        now = timezone.now()
        if run is None:
            ToolRun.objects.create(file_execution=file, state=EXECUTING, instance=pool().instance, started_at=now)
        elif abandoned(run):
            run.instance, run.started_at = pool().instance, now
            run.runs, run.restarts = run.runs + 1, run.restarts + 1
            run.save()
            log.warning("file %s: started again, its process died (run %d)", key, run.runs)
        else:
            return False
        FileExecution.objects.filter(pk=key).update(status=EXECUTING, modified_at=now)
    return True


def instant() -> bool:
    """Whether the tool of the moment takes no time: then its request runs it, and no capacity is spoken of."""
    return switchboard.current.tool == "echo" and not switchboard.current.tool_seconds


def start(job: Job) -> None:
    """Run a claimed job in the place that was reserved for it."""
    future = pool().start(job.key, functools.partial(carry_out, job))
    future.add_done_callback(functools.partial(_broken, job))


def carry_out(job: Job) -> None:
    """Run a claimed job in the calling thread."""
    begun = time.monotonic()
    switches = switchboard.current
    time.sleep(switches.tool_seconds)
    try:
        result, metadata = _use_tool(job, switches.tool)
        outcome: dict[str, Any] = {"state": COMPLETED, "result": result, "metadata": metadata}
    except ToolError as error:
        outcome = {"state": ERROR, "error": str(error), "metadata": {"tool": switches.tool}}
    _finish(job, {**outcome, "execution_time": round(time.monotonic() - begun, 3)})


def _use_tool(job: Job, tool: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result and what is known about it. `echo` reads nothing: it is for measuring everything but the tool."""
    metadata = {"tool": tool, "file_name": job.file_name}
    if tool == "echo":
        text = f"echo of {job.file_name}"
        counts = {"pages": 1, "words": len(text.split()), "characters": len(text)}
        result: dict[str, Any] = {"text": text, "mime_type": job.mime_type, **counts, "metadata": {}}
        result = result if job.page is None else pages.facts(job.page, text, job.mime_type)
        return result, {**metadata, "file_hash": job.file_hash}
    if job.path is None:
        raise ToolError(f"there is no file for {job.file_name!r}")
    request = {"path": str(job.path), "mime_type": job.mime_type, "page": job.page}
    result = pool().process().run(request, settings.SANDBOX.tool_limit_seconds)
    with job.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return result, {**metadata, "file_hash": digest}


def _finish(job: Job, outcome: dict[str, Any]) -> None:
    """Write the end of a run, again and again while the database is away: the work is done, and nobody else will."""
    while True:
        # A thread of the pool serves no requests, so nobody else looks whether its connection is still good.
        close_old_connections()
        try:
            _write(job, outcome)
        except Error as error:
            log.error("file %s: its end cannot be written yet: %s", job.key, error)
            time.sleep(_AGAIN_SECONDS)
        else:
            return


def _write(job: Job, outcome: dict[str, Any]) -> None:
    """The end of the run and its row in the destination are one transaction: neither is there without the other."""
    try:
        with transaction.atomic():
            if _settle(job.key, outcome) and job.table and outcome["state"] == COMPLETED:
                destination.write(job.table, job.key, job.file_name, outcome["result"])
    except DatabaseError as error:
        if not connection.is_usable():
            raise
        log.warning("file %s: its result is refused: %s", job.key, error)
        _settle(job.key, {"state": ERROR, "error": f"the result cannot be stored: {error}", "metadata": {}})


def _settle(key: uuid.UUID, outcome: dict[str, Any]) -> bool:
    """False when another process has taken the claim over."""
    return bool(ToolRun.objects.filter(pk=key, instance=pool().instance, state=EXECUTING).update(**outcome))


def _broken(job: Job, future: Future[None]) -> None:
    error = future.exception()
    if error is not None:
        log.error("file %s: the tool broke", job.key, exc_info=error)
        _finish(job, {"state": ERROR, "error": f"the tool broke: {type(error).__name__}: {error}", "metadata": {}})
