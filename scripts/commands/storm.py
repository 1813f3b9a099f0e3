"""`workers storm`: the whole path while everything breaks, on this machine."""

import click

from scripts.commands.processes import PASS_ON, become_of_checkout


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def storm(arguments: tuple[str, ...]) -> None:
    """Break everything at random while work flows in, and see what is lost: `workers storm --help`."""
    become_of_checkout("storm", "sandbox.storm", arguments)
