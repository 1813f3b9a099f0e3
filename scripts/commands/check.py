"""`workers check`: is everything there that a worker needs."""

import click

from scripts.commands.processes import become


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--orphans",
    nargs=2,
    metavar="ORGANIZATION WORKFLOW",
    help="Instead: hand the workflow's executions that the backend calls open, and no worker knows, to the reaper, "
    "which ends them by what the backend knows of their files.",
)
def check(orphans: tuple[str, str] | None) -> None:
    """Look at the configuration, the backend, the broker and the state store, and say what is wrong.

    Asks the backend with the key, and broker and state store as a worker would, over fresh connections. Exits 1 if
    anything is wrong.
    """
    become("shared.commands.check", ["--orphans", *orphans] if orphans else [])
