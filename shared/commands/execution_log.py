"""What `workers logs` runs: the lines of one execution's log."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from shared.config import BaseSettings
from shared.errors import StateStoreError
from shared.execution_log import ExecutionLog
from shared.redis_connection import redis_client
from shared.variables import SettingsError

_LOOK_SECONDS = 0.5
_LATEST = 1e11  # beyond it there is no date


def follow(log: ExecutionLog, execution_id: str, *, to_the_end: bool) -> Iterator[list[dict[str, Any]]]:
    """The lines that there are, by their time; then, if asked for, what comes until the execution has ended.

    Lines are carried by messages of their own, and may come behind the end: until a look finds no more.
    """
    last = None
    while True:
        over = log.over(execution_id)
        found = log.after(execution_id, last)
        yield sorted((line for _, line in found), key=_seconds)
        if not to_the_end or (over and not found):
            return
        last = found[-1][0] if found else last
        time.sleep(_LOOK_SECONDS)


def _seconds(line: Mapping[str, Any]) -> float:
    """Since 1970; 0 for what is no time of ours."""
    try:
        seconds = float(line.get("timestamp", 0))
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < _LATEST else 0.0


def row(line: Mapping[str, Any]) -> str:
    """A line for people: time, level, stage or component, file, text. What could steer a terminal is left out."""
    seconds = _seconds(line)
    at = datetime.fromtimestamp(seconds, UTC).isoformat(" ", "milliseconds") if seconds else line.get("timestamp", "-")
    place = "/".join(str(line[name]) for name in ("stage", "component") if name in line)
    head = f"{at}  {line.get('level', '-'):7}  {place or '-'}  {line.get('file', '-')}  "
    return "\n    ".join(_printable(part) for part in f"{head}{line.get('text', '')}".splitlines())


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("execution_id")
@click.option("--follow", "-f", "to_the_end", is_flag=True, help="Go on until the execution has ended.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def main(context: click.Context, execution_id: str, *, to_the_end: bool, as_json: bool) -> None:
    """Print the lines of one execution's log, as users of the platform see them.

    They may quote documents. At most the last 1,000 are kept, until an hour after the end. Needs CACHE_REDIS_HOST and
    CELERY_BROKER_URL, as the workers have them.
    """
    try:
        with redis_client(BaseSettings.load()) as client:
            log = ExecutionLog(client)
            if not log.known(execution_id):
                click.echo(
                    f"workers: nothing is known here of an execution {execution_id}: it has not begun, or ended more "
                    "than an hour ago; the backend's database has the lines of those",
                    err=True,
                )
                context.exit(1)
            for lines in follow(log, execution_id, to_the_end=to_the_end):
                for line in lines:
                    click.echo(json.dumps(line) if as_json else row(line))
    except (SettingsError, StateStoreError) as error:
        sys.exit(f"workers: {error}")


if __name__ == "__main__":
    main(prog_name="workers logs")
