"""`python -m shared.routing show | verify`: what `workers routing` runs."""

import importlib
from collections.abc import Sequence

import click

from config.beat_schedule import ENTRIES
from config.queue_routing import DEAD_LETTERS, QUEUES, ROUTES
from config.verification import Registered, Tables, problems, problems_of
from config.workers import LAYOUTS, PROFILES, WORKERS, Profile, UnknownProfileError, profile_named
from shared.live_routing import live_problems
from shared.task import definitions

_GAP = "  "


class RoutingError(Exception):
    """The tables do not fit together, or not the tasks; the message has one line for each thing that is wrong."""


def registered(modules: Sequence[str]) -> Registered:
    """The tasks of these modules by name, each with its function. The modules are imported."""
    return {
        module: {name: one.function for name, one in definitions(importlib.import_module(module)).items()}
        for module in modules
    }


def refuse_broken(profile: Profile) -> None:
    """Refuse to start a process whose messages would go astray.

    Raises:
        RoutingError: with every line of what is wrong.
    """
    found = dict.fromkeys(problems_of(profile, registered(profile.task_modules), Tables()))
    if found:
        raise RoutingError("\n".join(found))


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
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        click.echo(_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@main.command()
@click.option(
    "--profiles",
    help="Profiles that are deployed together, commas between them. Unless said: every layout of config/workers.py.",
)
@click.option("--broker", help="Also compare with the queues and consumers that live on this broker.")
@click.option("--queue-type", type=click.Choice(["classic", "quorum"]), default="classic", show_default=True)
@click.pass_context
def verify(context: click.Context, profiles: str | None, broker: str | None, queue_type: str) -> None:
    """Prove the table: tasks, rules, queues and consumers fit together, and the contract.

    Prints what is wrong, a line each with its remedy, and exits 1; or how many tasks are routed.
    """
    try:
        layouts = {profiles: [profile_named(name.strip()) for name in profiles.split(",")]} if profiles else LAYOUTS
    except UnknownProfileError as error:
        raise click.BadParameter(str(error), param_hint="--profiles") from None
    tasks = registered(PROFILES["all"].task_modules)
    found = list(dict.fromkeys(problems(tasks, layouts, Tables(), {entry.name: entry.task for entry in ENTRIES})))
    if broker is not None:
        deployed = layouts[profiles] if profiles else PROFILES["all"].workers
        queues = {queue for part in deployed for queue in part.queues}
        found += live_problems(broker, sorted(queues), queue_type)
    for line in found:
        click.echo(line)
    names = {name for module in tasks.values() for name in module}
    if not found:
        click.echo(f"{len(names)}/{len(names)} tasks routed")
    context.exit(int(bool(found)))


if __name__ == "__main__":
    main(prog_name="workers routing")
