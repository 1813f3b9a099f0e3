"""`workers`: the command line, one file per command. It starts workers as processes and imports none."""

import click

from scripts.commands.beat import beat
from scripts.commands.bench import bench
from scripts.commands.check import check
from scripts.commands.demo import demo
from scripts.commands.logs import logs
from scripts.commands.monitor import monitor
from scripts.commands.routing import routing
from scripts.commands.run import run
from scripts.commands.schedule import schedule
from scripts.commands.status import status
from scripts.commands.storm import storm
from scripts.commands.top import top
from scripts.commands.workflow import workflow


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unstract-workers")
def main() -> None:
    """Workers that take documents through a platform's backend."""


main.add_command(run)
main.add_command(beat)
main.add_command(schedule)
main.add_command(monitor)
main.add_command(check)
main.add_command(logs)
main.add_command(routing)
main.add_command(status)
main.add_command(top)
main.add_command(workflow)
main.add_command(demo)
main.add_command(storm)
main.add_command(bench)
