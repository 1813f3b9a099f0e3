"""`workers monitor`: the process that shows queues, workers and executions to Prometheus."""

import click

from scripts.commands.processes import become


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def monitor() -> None:
    """Show queues, workers and executions at /metrics, until told to stop. No message is taken.

    One is enough for all workers. Needs CELERY_BROKER_URL and CACHE_REDIS_HOST.
    """
    become("shared.monitor", [])
