"""`workers workflow`: workflows and their runs."""

import click

from scripts.commands.processes import PASS_ON, become


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def workflow(arguments: tuple[str, ...]) -> None:
    """List, draw, run, follow and cancel workflows: `workers workflow --help`."""
    become("shared.commands.workflow", arguments)
