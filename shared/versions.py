"""What runs, for whoever asks a process."""

import platform
from importlib.metadata import PackageNotFoundError, version

import celery


def versions() -> dict[str, str]:
    """Ours, Celery's and Python's."""
    try:
        ours = version("unstract-workers")
    except PackageNotFoundError:  # started from a folder that was copied
        ours = "unknown"
    return {"version": ours, "celery": celery.__version__, "python": platform.python_version()}
