"""What `workers status` runs: an execution, its files, and what it waits for."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import click

from config.workers import orchestration_of
from shared.api_client import InternalAPIClient
from shared.backend_models import ExecutionRow, FileExecution
from shared.claims import Claims
from shared.config import Settings
from shared.errors import NotFoundError, WorkerError
from shared.execution_state import ExecutionState, Run
from shared.logging_utils import configure_logging
from shared.models import Stage
from shared.orchestration import batch_work_name, planned
from shared.redis_connection import redis_client
from shared.variables import SettingsError

_WATCH_SECONDS = 1.0
_NAME_WIDTH = 48


class UnknownExecutionError(Exception):
    """Neither the workers nor the backend know it; the message says what to try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of one execution now.

    Attributes:
        row: what the backend says.
        files: its files there.
        is_api: its kind.
        run: what the workers know; None of one that has ended, or that none of them has taken.
        missing: the batches that have no result yet, by their numbers, and whether a process is at each.
        starting: whether a process is at its start.
        ending: whether a process is at its callback.
        failure: why it cannot go on, if so.
        stages: where its files are, by their places.
    """

    row: ExecutionRow
    files: list[FileExecution] = field(default_factory=list)
    is_api: bool = True
    run: Run | None = None
    missing: Mapping[int, bool] = field(default_factory=dict)
    starting: bool = False
    ending: bool = False
    failure: str | None = None
    stages: Mapping[str, Stage] = field(default_factory=dict)


def waits_for(seen: Seen) -> str:
    """What must happen next, and who does it."""
    kind, run, ended = orchestration_of(is_api=seen.is_api), seen.run, seen.row.is_terminal
    callback = f"its callback in {kind.callback_queue}"
    first_that_holds = (
        (ended and run is None, "nothing: it has ended"),
        (seen.ending, "its callback, which a worker is at"),
        (ended, f"{callback}, which goes on with its notifications"),
        (seen.starting, "its start: a worker is collecting its files"),
        (run is None, f"a worker that takes its message from {kind.queue}; if that was lost: workers check --orphans"),
        (seen.failure is not None, f"{callback}, which ends it: {seen.failure}"),
        (run is not None and run.batches is None, f"its start: its message waits in {kind.queue} to be tried again"),
        (not seen.missing, callback),
        (True, _batches(seen, kind.batch_queue)),
    )
    return next(said for holds, said in first_that_holds if holds)


def _batches(seen: Seen, queue: str) -> str:
    worked = [number for number, at_work in seen.missing.items() if at_work]
    waiting = [number for number, at_work in seen.missing.items() if not at_work]
    said = []
    if worked:
        said.append(f"{_count(worked)} at work")
    if waiting:
        said.append(f"{_count(waiting)} in {queue}")
    return f"{len(seen.missing)} of {seen.run.batches if seen.run else '?'} batches: {', '.join(said)}"


def _count(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"{len(numbers)} ({shown})"


def lines(seen: Seen, now: datetime) -> Iterator[str]:
    """The execution as it is shown."""
    row = seen.row
    kind = "API deployment" if seen.is_api else "pipeline"
    since = f", created {(now - row.created_at).total_seconds():.0f} s ago" if row.created_at else ""
    yield f"{row.id}  {row.status}  ({kind} {row.pipeline_id or 'unknown'}, workflow {row.workflow_id}{since})"
    if row.error_message:
        yield f"error      {row.error_message}"
    yield f"waits for  {waits_for(seen)}"
    if seen.run is not None:
        left = seen.run.deadline - now.timestamp()
        looks = f"; the reaper has looked after it {seen.run.looks} times" if seen.run.looks else ""
        yield f"deadline   in {left:.0f} s{looks}"
    ended = sum(file.status in {"COMPLETED", "ERROR", "STOPPED"} for file in seen.files)
    yield f"files      {ended} of {row.total_files or len(seen.files)} have ended"
    stages = {place.split("/", 2)[2]: stage for place, stage in seen.stages.items()}
    for file in seen.files:
        yield _file(file, stages)
    begun = {file.file_name for file in seen.files}
    for name in sorted(stages.keys() - begun):
        yield f"  {name:{_NAME_WIDTH}} {stages[name]}"


def _file(file: FileExecution, stages: Mapping[str, Stage]) -> str:
    name = file.file_name or file.id
    seconds = f"  {file.execution_time:.1f} s" if file.execution_time else ""
    state = (
        file.status if file.status in {"COMPLETED", "ERROR", "STOPPED"} else stages.get(name, file.status or "created")
    )
    return f"  {name:{_NAME_WIDTH}} {state}{seconds}" + (f"  {file.execution_error}" if file.execution_error else "")


def look(settings: Settings, execution_id: str, organization_id: str | None) -> Seen:
    """Ask the workers' state and the backend.

    Raises:
        UnknownExecutionError: neither has it.
        WorkerError: one of them cannot be asked.
    """
    with redis_client(settings) as redis, InternalAPIClient(replace(settings, backend_attempts=1), slots=1) as client:
        state = ExecutionState(redis, settings.execution_deadline, settings.stall)
        claims = Claims(redis, settings.lease)
        run = state.run(execution_id)
        organization = run.organization_id if run else organization_id
        if organization is None:
            raise UnknownExecutionError(
                f"no worker is at {execution_id}: it has ended, or none has taken it yet; with --organization the "
                "backend is asked"
            )
        backend = client.for_organization(organization)
        try:
            found = backend.execution(execution_id)
        except NotFoundError:
            raise UnknownExecutionError(f"the backend has no execution {execution_id} of {organization}") from None

        plan = state.plan(execution_id)

        def at(what: str) -> bool:
            return claims.alive(state.claim(execution_id, what))

        return Seen(
            row=found.execution,
            files=backend.file_executions(execution_id),
            is_api=found.source_config.is_api,
            run=run,
            missing={number: at(batch_work_name(number)) for number in sorted(plan)},
            starting=at("orchestration"),
            ending=at("callback"),
            failure=state.progress(execution_id)[0],
            stages=dict.fromkeys(planned(plan), Stage.QUEUED) | state.stages(execution_id),
        )


@click.command()
@click.argument("execution_id")
@click.option("--organization", help="Whose it is; needed for one that no worker is at any more.")
@click.option("--watch", is_flag=True, help="Look again every second until it has ended.")
@click.pass_context
def main(context: click.Context, execution_id: str, organization: str | None, watch: bool) -> None:
    """Show an execution: its files, what became of them, and what it waits for.

    Asks the state store and the backend, as the workers do. Exits 1 if it is not known, or ended in error.
    """
    configure_logging("ERROR", "auto")
    try:
        settings = Settings.load()
        seen = look(settings, execution_id, organization)
        while watch and not (seen.row.is_terminal and seen.run is None):
            organization = organization or (seen.run.organization_id if seen.run else None)
            _show(seen, clear=True)
            time.sleep(_WATCH_SECONDS)
            seen = look(settings, execution_id, organization)
    except (SettingsError, UnknownExecutionError, WorkerError) as error:
        click.echo(f"workers: {error}", err=True)
        context.exit(1)
    _show(seen, clear=watch)
    context.exit(int(seen.row.status == "ERROR"))


def _show(seen: Seen, *, clear: bool) -> None:
    if clear:
        click.clear()  # only on a terminal
    click.echo("\n".join(lines(seen, datetime.now(UTC))))


if __name__ == "__main__":
    main(prog_name="workers status")
