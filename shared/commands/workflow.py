"""What `workers workflow` runs: workflows as they are declared, and their runs, whichever engine has them."""

import shared.without_extras  # noqa: F401, I001 # first: it must come before Celery, which an engine may bring

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any, NoReturn, TextIO

import click

from shared.commands.columns import aligned
from shared.config import ClientSettings, WorkflowSettings
from shared.errors import WorkerError
from shared.logging_utils import configure_logging
from shared.variables import SettingsError
from shared.commands import drawing
from shared.workflows import catalogue
from shared.workflows.catalogue import Catalogue
from shared.workflows.client import TaskClient, client_of
from shared.workflows.errors import BorderError, RunFailedError
from shared.workflows.shape import ENDED, ON_FAILURE, RunStatus, StepState
from shared.workflows.views import Event, RunView, StepView

See = Callable[[Event | None], None]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Look at workflows, run them, and follow their runs.

    WORKFLOW_MODULES names the modules that declare them, TASK_QUEUE_BACKEND says what runs them.
    """
    configure_logging("WARNING", "auto")


@cli.command("list")
def show() -> None:
    """Show every workflow: its steps, how long it may take, and what it is for."""
    rows = [("NAME", "STEPS", "TIME LIMIT", "")]
    for one in _declared():
        first = (one.owner.__doc__ or "").strip().partition("\n")[0]
        rows.append((one.name, str(len(one.shape.steps)), drawing.span(one.shape.timeout), first))
    if len(rows) == 1:
        raise SettingsError(
            "WORKFLOW_MODULES is not set: name the modules that declare workflows, as Python imports them"
        )
    _say("\n".join(aligned(rows)))


@cli.command()
@click.argument("name")
@click.option("--mermaid", is_flag=True, help="As Mermaid, for a page that shows it.")
def graph(name: str, mermaid: bool) -> None:
    """Draw the steps of workflow NAME, as `git log --graph` draws commits: what goes down from a step is its output."""
    found = _declared().named(name)
    if mermaid:
        click.echo("\n".join(drawing.mermaid(found)).encode())  # UTF-8 wherever it is made, as pages are
    else:
        rows = [(row + step, ", ".join(drawing.about(found, step))) for step, row in drawing.lanes(found.shape).items()]
        _say("\n".join(aligned(rows)))


@cli.command()
@click.argument("name")
@click.option("--input", "path", metavar="FILE", help="JSON that it is given, - for standard input; null by default.")
@click.option("--run-key", metavar="KEY", help="The same key starts a run once, and waits for that one.")
@click.option("--organization", "organization_id", metavar="ID", help="The tenant that it is run for.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Wait so long at most.")
@click.option("--watch", is_flag=True, help="Show on standard error what happens meanwhile.")
@click.option("--no-wait", is_flag=True, help="Start it, print its id, and leave.")
def run(name: str, path: str | None, timeout: float | None, watch: bool, no_wait: bool, **how: Any) -> None:
    """Run workflow NAME, and print the outputs of its last steps as JSON.

    Exits 1 if it failed, with the step and the reason on standard error.
    """
    settings = ClientSettings.load()
    local = settings.engine == "local"
    if no_wait and (watch or timeout or local):
        raise click.UsageError("--no-wait goes neither with --watch or --timeout nor with TASK_QUEUE_BACKEND=local")
    with client_of(settings) as client:
        run_id = client.start_workflow(name, _input(path), **how)
        click.echo(run_id if no_wait else f"run {run_id}", err=not no_wait)
        if no_wait:
            return
        try:
            _follow(client, run_id, sys.stderr if watch else None, timeout)
        except (KeyboardInterrupt, TimeoutError, WorkerError) as error:
            _leave(client, run_id, error, local=local)
        _say_json(client.result(run_id))


@cli.command()
@click.argument("run_id", metavar="RUN")
@click.option("--watch", is_flag=True, help="Show what happens, until it ends.")
@click.option("--json", "as_json", is_flag=True, help="As JSON; with --watch once it has ended.")
def status(run_id: str, watch: bool, as_json: bool) -> None:
    """Show where RUN and its steps are. Exits 1 if it failed or was cancelled."""
    with client_of(_elsewhere()) as client:
        if watch:
            _follow(client, run_id, None if as_json else sys.stdout)
        view = client.status(run_id)
        if as_json:
            _say_json(view.as_json())
        elif not watch:
            _say("\n".join(lines(view, client.workflows, {})))
    sys.exit(int(view.status in {RunStatus.FAILED, RunStatus.CANCELLED}))


@cli.command()
@click.argument("run_id", metavar="RUN")
def cancel(run_id: str) -> None:
    """End RUN: nothing more of it begins."""
    with client_of(_elsewhere()) as client:
        done = client.cancel(run_id)
    click.echo(f"run {run_id} {'was cancelled' if done else 'had ended before; nothing was cancelled'}")


def _declared() -> Catalogue:
    return catalogue.load(WorkflowSettings.load().workflow_modules)


def _elsewhere() -> ClientSettings:
    settings = ClientSettings.load()
    if settings.engine == "local":
        raise SettingsError("TASK_QUEUE_BACKEND is local, whose runs are known to their own process alone: run --watch")
    return settings


def _input(path: str | None) -> Any:
    try:
        with click.open_file(path or os.devnull, "rb") as file:
            return json.loads(file.read() if path else "null")
    except (OSError, ValueError, RecursionError) as error:
        raise BorderError(f"--input must name a file that holds JSON: {error}") from error


def _follow(client: TaskClient, run_id: str, stream: TextIO | None, seconds: float | None = None) -> None:
    """Until the end of a run. There, if anywhere, is shown what happens."""

    async def follow() -> None:
        async with asyncio.timeout(seconds):
            async for event in client.follow(run_id):
                see(event)

    with _eye(client, run_id, stream) as see:
        asyncio.run(follow())


def _leave(client: TaskClient, run_id: str, error: BaseException, *, local: bool) -> NoReturn:
    """Say what becomes of a run that nobody waits for any more, and end."""
    why = f"cannot be followed: {error}" if isinstance(error, WorkerError) else "is not waited for any more"
    then = f"it goes on; follow it: workers workflow status {run_id} --watch; end it: workers workflow cancel {run_id}"
    if local:
        client.cancel(run_id)
        then = "it was cancelled, for a local run ends with its process"
    click.echo(f"workers: run {run_id} {why}; {then}", err=True)
    sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)  # what a shell says of Ctrl-C


def _eye(client: TaskClient, run_id: str, stream: TextIO | None) -> AbstractContextManager[See]:
    """What is shown of a run there: a picture on a terminal, elsewhere a line for each change."""
    if stream is None:
        return nullcontext(lambda _event: None)
    if stream.isatty() and find_spec("rich") is not None:
        return _picture(client, run_id, stream)
    return nullcontext(partial(_tell, client, run_id, stream, Counter()))


def _tell(client: TaskClient, run_id: str, stream: TextIO, ended: Counter[str], event: Event | None) -> None:
    """A line for an event. `ended` counts the items that have, of each step."""
    if event is None:
        return
    view, who = client.status(run_id), event.step or "run"
    said = [*([f"attempt {event.attempt}"] if event.attempt else []), *_told(event)]
    if event.step and event.index is not None:
        ended[event.step] += event.state in ENDED
        said.append(f"{ended[event.step]}/{view.steps[event.step].items} ended")
        who = f"{who}[{event.index}]"
    _say(f"{max(0.0, event.at - view.began):8.1f} s  {who}  {event.state}  {', '.join(said)}".rstrip(), stream)


@contextmanager
def _picture(client: TaskClient, run_id: str, stream: TextIO) -> Iterator[See]:
    from rich import console, live, text  # noqa: PLC0415 # where it is installed

    retried: dict[str, str] = {}
    drawn = 0.0

    def see(event: Event | None) -> None:
        nonlocal drawn
        if event is not None and event.step and event.state == StepState.RETRYING:
            retried[event.step] = f"after attempt {event.attempt}: {', '.join(_told(event))}"
        if event is None or event.last or time.monotonic() - drawn > 0.1:
            told = "\n".join(lines(client.status(run_id), client.workflows, retried))
            picture = text.Text(_writable(told, stream.encoding), no_wrap=True, overflow="ellipsis")
            picture.highlight_words([" failed ", " retrying "], "red")
            screen.update(picture, refresh=True)
            drawn = time.monotonic()

    with live.Live(console=console.Console(file=stream), auto_refresh=False) as screen:
        yield see


def lines(view: RunView, workflows: Catalogue, retried: Mapping[str, str]) -> Iterator[str]:
    """A run as it is shown: beside its graph, where that is known here. `retried` says why steps are tried again."""
    end = view.ended or time.time()
    yield f"run {view.run_id} of {view.workflow}  {view.status}  {end - view.began:.1f} s  {_clean(view.reason)}"
    graph = next((drawing.lanes(one.shape) for one in workflows if one.name == view.workflow), {})
    if {*graph, ON_FAILURE} != {*view.steps, ON_FAILURE}:
        graph = dict.fromkeys(view.steps, "")  # it was declared otherwise when it was started
    shown = [name for name in graph if name in view.steps]
    rows = [_row(graph[name] + name, view.steps[name], retried.get(name, ""), end) for name in shown]
    yield from aligned([("STEP", "STATE", "ATTEMPTS", "ITEMS", "SECONDS", ""), *rows])


def _row(name: str, step: StepView, retried: str, now: float) -> tuple[str, ...]:
    items = "-" if step.items is None else f"{step.items_ended}/{step.items}"
    seconds = f"{(step.ended or now) - step.began:.1f}" if step.began else "-"
    return name, step.state, str(step.attempts), items, seconds, ", ".join(_told(step)) or retried


def _told(one: Event | StepView) -> list[str]:
    """How far it is, as it says, and why it failed."""
    total = "" if one.total is None else f"/{one.total:g}"
    progress = "" if one.done is None else f"{one.done:g}{total} {one.message or ''}"
    place = "" if isinstance(one, Event) or one.index is None else f"item {one.index}: "
    return [_clean(said) for said in (progress, one.reason and place + one.reason) if said]


def _clean(text: str | None) -> str:
    """On one line, and without what a terminal would obey."""
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text or "").split())


def _writable(text: str, encoding: str) -> str:
    try:
        return text.encode(encoding).decode(encoding)
    except UnicodeEncodeError:
        return drawing.plain(text).encode(encoding, "backslashreplace").decode(encoding)


def _say(text: str, stream: TextIO | None = None) -> None:
    click.echo(_writable(text, (stream or sys.stdout).encoding), file=stream)


def _say_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    click.echo(text if _writable(text, sys.stdout.encoding) == text else json.dumps(value, indent=2))


def main() -> None:
    """Do what the arguments say; the process ends with 1 and the reason where that cannot be."""
    try:
        cli(prog_name="workers workflow")
    except (SettingsError, WorkerError) as error:
        others = error.others if isinstance(error, RunFailedError) else ()
        sys.exit("\n".join(f"workers: {_clean(str(one))}" for one in (error, *others)))
    except ImportError as error:
        sys.exit(f"workers: what TASK_QUEUE_BACKEND says is not installed here: {error}")


if __name__ == "__main__":
    main()
