"""What `workers schedule` runs. The scheduler hears of each change within seconds."""

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
from celery import Celery
from celery.schedules import crontab
from redis.exceptions import RedisError

from config.beat_schedule import ENTRIES
from shared.commands.columns import aligned
from shared.config import BaseSettings
from shared.schedule_store import ScheduleError, StoredEntry, check_task, entries, from_row, nearest, times
from shared.scheduler import ScheduleApp
from shared.variables import SettingsError

_PIPELINE = "scheduler.tasks.execute_pipeline_task"
_NAME = re.compile(r"\w[\w.:/@-]{0,99}")
_HEAD = ("NAME", "TASK", "SCHEDULE", "ENABLED", "LAST RUN", "NEXT DUE", "FROM")


def _refuse(word: str) -> None:
    raise ValueError(word)  # NaN and Infinity, which are no JSON


def _json(kind: type, example: str) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A parser of an option whose value is JSON of that kind."""

    def parse(_context: click.Context, _option: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            found = json.loads(value, parse_constant=_refuse)
        except ValueError:
            found = None
        if not isinstance(found, kind):
            raise click.BadParameter(f"it must be JSON of the kind of {example}; {value!r} is not")
        return found

    return parse


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Look at the schedule, and change it while beat runs. What is changed here outlives restarts."""


@cli.command("list")
def show() -> None:
    """Show every entry: its task and times, when it ran last, when it is due, and who says so."""
    app = _app()
    rows = [_HEAD, *(_row(app, entry) for entry in entries(app).values())]
    click.echo("\n".join(aligned(rows)))


@cli.command()
@click.argument("name")
def enable(name: str) -> None:
    """Have NAME run again, from now on: what was due meanwhile is not made up for."""
    _switch(_known(name), on=True)


@cli.command()
@click.argument("name")
def disable(name: str) -> None:
    """Have NAME run no more, until it is enabled."""
    _switch(_known(name), on=False)


@cli.command("set")
@click.argument("name")
@click.option("--task", help="The task's name, as the routing table has it.")
@click.option("--pipeline", nargs=2, metavar="ORGANIZATION PIPELINE_ID", help="Instead of a task: run this pipeline.")
@click.option("--every", type=float, metavar="SECONDS", help="Run it so often.")
@click.option("--cron", metavar="'MINUTE HOUR DAY MONTH WEEKDAY'", help="Run it then, by SCHEDULE_TIMEZONE.")
@click.option("--args", callback=_json(list, '["a", 1]'), help="Its arguments by place, as JSON.")
@click.option("--kwargs", callback=_json(dict, '{"a": 1}'), help="Its arguments by name, as JSON.")
def put(name: str, every: float | None, cron: str | None, **said: Any) -> None:
    """Add NAME, or change it. What is not said of one that is there stays as it was."""
    if every is not None and cron is not None:
        raise click.UsageError("say --every or --cron, not both")
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} cannot be a name: that is up to 100 letters, digits and ._:/@-")
    app = _app()
    had = entries(app).get(name)
    task, args, kwargs = _what(name, said, had)
    text = every if every is not None else cron
    if text is None and had is None:
        raise click.UsageError(f"{name} is not there yet: say --every or --cron")
    check_task(task, f"of {name}")
    run_every = times(text) if text is not None else had.schedule if had else None
    entry = StoredEntry(app=app, name=name, task=task, schedule=run_every, args=args, kwargs=kwargs, by_operator=True)
    if had is not None:
        entry.read, entry.enabled, entry.last_run_at = had.read, had.enabled, had.last_run_at
    _save(entry)


@cli.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget what was set for NAME: it goes, or is again what config/beat_schedule.py says."""
    entry = _known(name)
    if not entry.by_operator:
        raise ScheduleError(f"{name} stands in config/beat_schedule.py, which would bring it back: disable it instead")
    row = next((row for row in ENTRIES if row.name == name), None)
    if row is None:
        entry.delete()
        click.echo(f"{name} is gone")
    else:
        _save(from_row(entry.app, row, entry))


def _what(name: str, said: dict[str, Any], had: StoredEntry | None) -> tuple[str, list[Any], dict[str, Any]]:
    """Task and arguments of what is set. A pipeline's: contract section 1."""
    if said["pipeline"]:
        if said["task"] or said["args"] is not None or said["kwargs"] is not None:
            raise click.UsageError("--pipeline has task and arguments of its own")
        organization_id, pipeline_id = said["pipeline"]
        return _PIPELINE, ["", organization_id, "", "", pipeline_id, False, name], {}
    if said["task"] is None and had is None:
        raise click.UsageError(f"{name} is not there yet: say --task or --pipeline")
    same = had is not None and said["task"] in {None, had.task}
    args = said["args"] if said["args"] is not None else had.args if same and had else []
    kwargs = said["kwargs"] if said["kwargs"] is not None else had.kwargs if same and had else {}
    return said["task"] or (had.task if had else ""), list(args), dict(kwargs)


def _app() -> ScheduleApp:
    return ScheduleApp(BaseSettings.load())


def _known(name: str) -> StoredEntry:
    known = entries(_app())
    if name not in known:
        hint = f"did you mean {nearest(name, known)}?" if known else "nothing is there before beat has started once"
        raise ScheduleError(f"there is no entry {name!r}; {hint}")
    return known[name]


def _switch(entry: StoredEntry, *, on: bool) -> None:
    if on and not entry.enabled:
        entry.since = datetime.now(UTC)
    entry.enabled = on
    _save(entry)


def _save(entry: StoredEntry) -> None:
    if not entry.save():
        raise ScheduleError(f"{entry.name} was changed by somebody else in this moment; look at it, and try again")
    click.echo(f"{entry.name} is {_due(entry)}" if entry.enabled else f"{entry.name} is disabled")


def _due(entry: StoredEntry) -> str:
    return f"due at {_local(entry.app, entry.due_at)}"


def _row(app: Celery, entry: StoredEntry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.task,
        _shown(entry.schedule),
        "yes" if entry.enabled else "no",
        _local(app, entry.last_run_at),
        _local(app, entry.due_at if entry.enabled else None),
        "operator" if entry.by_operator else "config/beat_schedule.py",
    )


def _shown(run_every: Any) -> str:
    if not isinstance(run_every, crontab):
        return f"every {run_every.seconds:g} s"
    _, (minute, hour, weekday, day, month), _ = run_every.__reduce__()
    return f"{minute} {hour} {day} {month} {weekday}"


def _local(app: Celery, at: datetime | None) -> str:
    return at.astimezone(app.timezone).isoformat(" ", "seconds") if at else "-"


def main() -> None:
    """Do what the arguments say; the process ends with 1 and the reason where that cannot be."""
    try:
        cli(prog_name="workers schedule")
    except (SettingsError, ScheduleError) as error:
        sys.exit(f"workers: {error}")
    except RedisError as error:
        sys.exit(f"workers: the state store cannot be asked: {error}")


if __name__ == "__main__":
    main()
