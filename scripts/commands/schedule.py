"""`workers schedule`: what runs when, looked at and changed while beat runs."""

import click

from scripts.commands.processes import PASS_ON, become


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def schedule(arguments: tuple[str, ...]) -> None:
    """List, enable, disable, set and remove what beat sends: `workers schedule --help`."""
    become("shared.commands.schedule", arguments)
