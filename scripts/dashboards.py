#!/usr/bin/env python3
"""Write monitoring/dashboards, or see whether it is as the code says: `uv run python scripts/dashboards.py --help`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

try:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    from scripts.boards.backend import BACKEND
    from scripts.boards.executions import EXECUTIONS
    from scripts.boards.fleet import FLEET
    from scripts.boards.panels import built
    from scripts.generated import settle
except ModuleNotFoundError as error:
    sys.exit(f"this needs {error.name}, which only a checkout has: uv run python scripts/dashboards.py")

FOLDER = Path(__file__).resolve().parent.parent / "monitoring" / "dashboards"


def rendered() -> Iterator[tuple[Path, str]]:
    """Each dashboard's file, and what is to stand in it."""
    for board in (FLEET, EXECUTIONS, BACKEND):
        made = json.dumps(built(board).build(), cls=JSONEncoder, indent=2, sort_keys=True)
        yield FOLDER / f"{board.name}.json", made + "\n"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a file is not as the code says.")
def main(check: bool) -> None:
    """Write the dashboards that monitoring/dashboards holds for Grafana."""
    settle(dict(rendered()), (), FOLDER, "not as the code says; uv run python scripts/dashboards.py", check=check)


if __name__ == "__main__":
    main()
