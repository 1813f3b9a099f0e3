"""An environment for each system that is not ours, as pyproject.toml here has them, made by uv when it is needed.

They are kept in the user's cache, outside the checkout, so that nothing that walks over its files meets them.
"""

import os
import sys
from functools import cache
from pathlib import Path

from tests.benchmarks import uv

HERE = Path(__file__).resolve().parent


def folder(group: str) -> Path:
    """Where that group's environment is."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "unstract-workers" / "peers" / f"{group}-{sys.version_info.major}.{sys.version_info.minor}"


@cache
def make(group: str) -> str | None:
    """Make or update that group's environment, once in a process; why it cannot be had, or None."""
    return uv.sync(HERE, folder(group), "--only-group", group)
