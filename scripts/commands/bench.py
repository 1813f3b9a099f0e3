"""`workers bench`: how light and how fast, measured on this machine."""

import click

from scripts.commands.processes import PASS_ON, become_of_checkout


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure memory, latency, throughput and requests on this machine: `workers bench --help`."""
    become_of_checkout("bench", "tests.benchmarks", arguments)
