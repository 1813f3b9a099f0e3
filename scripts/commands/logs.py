"""`workers logs`: what the platform's log says of one execution."""

import click

from scripts.commands.processes import PASS_ON, become


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="EXECUTION_ID [--follow] [--json]")
def logs(arguments: tuple[str, ...]) -> None:
    """Print the log of one execution; it may quote documents: `workers logs --help`."""
    become("shared.commands.execution_log", arguments)
