"""`workers routing`: which task goes where, and the proof that it is right."""

import click

from scripts.commands.processes import PASS_ON, become


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="show | verify [OPTIONS]")
def routing(arguments: tuple[str, ...]) -> None:
    """Print the routing table (show), or prove it (verify): `workers routing verify --help` says more."""
    become("shared.commands.routing", arguments)
