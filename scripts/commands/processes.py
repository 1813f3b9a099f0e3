"""Becoming another Python process: the command line imports no worker, so that it starts fast and stays apart."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

# Everything after the name belongs to the process that is started, `--help` too.
PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `python -m module`, so that signals reach it and its exit code is ours."""
    # -P: a folder of the same name where the user stands must not be imported instead.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 # no shell is wanted
