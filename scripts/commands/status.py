"""`workers status EXECUTION_ID`: where an execution is."""

import click

from scripts.commands.processes import PASS_ON, become


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="EXECUTION_ID [OPTIONS]")
def status(arguments: tuple[str, ...]) -> None:
    """Show an execution, its files and what it waits for: `workers status --help`."""
    become("shared.commands.execution_status", arguments)
