"""`workers demo`: real documents through the whole path, on this machine, with no server to install."""

import click

from scripts.commands.processes import PASS_ON, become_of_checkout


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Take documents through the whole path on this machine: `workers demo --help`."""
    become_of_checkout("demo", "sandbox.demo", arguments)
