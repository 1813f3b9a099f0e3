"""`workers beat`: the process that sends periodic tasks."""

import click

from scripts.commands.processes import become


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def beat() -> None:
    """Send the tasks of the schedule, each at its time, until told to stop.

    Of several that run, one sends and the others wait. Needs CELERY_BROKER_URL and CACHE_REDIS_HOST.
    """
    become("shared.beat", [])
