"""`workers run PROFILE`: one process that holds a worker, or all of them."""

import click

from config.workers import PROFILES, UnknownProfileError, profile_named
from scripts.commands.processes import PASS_ON, become


@click.command(context_settings={**PASS_ON, "help_option_names": ["-h", "--help"]})
@click.argument("profile")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[CELERY OPTIONS]...")
@click.pass_context
def run(context: click.Context, profile: str, options: tuple[str, ...]) -> None:
    """Run PROFILE until told to stop: a worker's name, or `all` for every queue in one process.

    CELERY OPTIONS are those of `celery worker`, and win over the registry's: `workers run callback --concurrency 4`.
    """
    if {"-h", "--help"} & set(options):
        click.echo(context.get_help())
        return
    try:
        become("shared", [profile_named(profile).name, *options])
    except UnknownProfileError as error:
        raise click.UsageError(f"{error} (there are: {', '.join(PROFILES)})") from None
