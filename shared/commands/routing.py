"""`python -m shared.commands.routing show | verify`: what `workers routing` runs."""

import json
import pkgutil
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain

import click

from config.beat_schedule import ENTRIES
from config.queue_routing import DEAD_LETTERS, QUEUES, ROUTES
from config.verification import Tables, problems
from config.workers import LAYOUTS, PROFILES, WORKERS, UnknownProfileError, profile_named
from shared.commands.columns import aligned
from shared.commands.live_routing import live_problems
from shared.config import BaseSettings
from shared.schedule_store import ScheduleError, times
from shared.start_check import registered
from shared.variables import SettingsError, broker_address, read

_OWN = "that of the environment"


def unusable() -> Iterator[str]:
    """What the tables name and nobody has: functions of the registry, times and arguments of the schedule."""
    for worker in WORKERS.values():
        for name in (*worker.timers, *([worker.orchestration.source] if worker.orchestration else [])):
            try:
                pkgutil.resolve_name(name)
            except (AttributeError, ImportError, ValueError) as error:
                yield f"worker {worker.name} names {name}, which is not there ({error}); correct its row"
    for entry in ENTRIES:
        try:
            times(entry.schedule)
            json.dumps([entry.args, dict(entry.kwargs)], allow_nan=False)
        except (ScheduleError, TypeError, ValueError) as error:
            yield f"schedule entry {entry.name}: {error}; correct it in config/beat_schedule.py"


def rows() -> list[tuple[str, str, str, str]]:
    """The table: task, queue, priority, who consumes it: the worker, then the profiles that are no single worker."""
    found = []
    for route in ROUTES:
        for queue in route.queues:
            names = [name for name, profile in PROFILES.items() if queue in profile.queues]
            workers, others = ([n for n in names if (n in WORKERS) is own] for own in (True, False))
            found.append((route.task, queue, str(QUEUES[queue]), f"{', '.join(workers)}; {', '.join(others)}"))
    return found


@click.group()
def main() -> None:
    """Which task goes where, and whether that is right."""


@main.command()
def show() -> None:
    """Print the table: task, queue, priority, and the workers and profiles that consume it."""
    table = [("TASK", "QUEUE", "PRIORITY", "CONSUMED BY"), *rows(), (f"(poison) {DEAD_LETTERS}", "", "", "people")]
    click.echo("\n".join(aligned(table)))


@main.command()
@click.option(
    "--profiles",
    help="Profiles that are deployed together, commas between them. Unless said: every layout of config/workers.py.",
)
@click.option(
    "--broker",
    is_flag=False,
    flag_value=_OWN,
    metavar="[URL]",
    help="Also compare with the queues and consumers that live on this broker; without URL, on CELERY_BROKER_URL's.",
)
@click.option(
    "--alone", is_flag=True, help="On the broker only see whether anybody but our workers consumes these queues."
)
@click.option("--queue-type", type=click.Choice(["classic", "quorum"]), default="classic", show_default=True)
@click.pass_context
def verify(context: click.Context, profiles: str | None, broker: str | None, alone: bool, queue_type: str) -> None:
    """Prove the table: tasks, rules, queues and consumers fit together, and the contract.

    Prints what is wrong, a line each with its remedy, and exits 1; or how many tasks are routed.
    """
    try:
        layouts = (
            LAYOUTS if profiles is None else {profiles: [profile_named(name.strip()) for name in profiles.split(",")]}
        )
    except UnknownProfileError as error:
        raise click.BadParameter(str(error), param_hint="--profiles") from None
    if alone and broker is None:
        raise click.UsageError("--alone needs --broker")
    if broker is not None:
        broker = _address(broker)
    tasks = registered(PROFILES["all"].task_modules)
    found = list(dict.fromkeys(chain(problems(tasks, layouts, Tables(), ENTRIES), unusable())))
    if broker is not None:
        queues = {queue for layout in layouts.values() for profile in layout for queue in profile.queues}
        found += live_problems(broker, sorted(queues), queue_type, alone=alone)
    for line in found:
        click.echo(line)
    names = {name for module in tasks.values() for name in module}
    if not found:
        click.echo(f"{len(names)}/{len(names)} tasks routed")
    context.exit(int(bool(found)))


def _address(raw: str) -> str:
    try:
        if raw == _OWN:
            return str(
                read(next(spec.metadata for spec in fields(BaseSettings) if spec.name == "broker_url"), None).reveal()
            )
        return broker_address(raw.strip()).reveal()
    except SettingsError as mistake:
        raise click.UsageError(str(mistake)) from None
    except ValueError:
        raise click.BadParameter(f"it must be {broker_address.__doc__}", param_hint="--broker") from None


if __name__ == "__main__":
    main(prog_name="workers routing")
