"""`workers top`: the fleet in a terminal."""

from importlib.util import find_spec

import click

from scripts.commands.processes import PASS_ON, become


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
def top(arguments: tuple[str, ...]) -> None:
    """Watch queues, workers, rates, circuits and errors: `workers top --help`."""
    if find_spec("rich") is None:
        raise click.UsageError("it needs rich: uv sync --group top, or pip install rich")
    become("shared.commands.top", arguments)
