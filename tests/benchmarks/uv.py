"""Environments that uv makes for a benchmark."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_PATIENCE_SECONDS = 60.0


def sync(project: Path, folder: Path, *chosen: str) -> str | None:
    """Make or update a project's environment there, of the Python that runs this; why it cannot be had, or None.

    `chosen` are options of `uv sync`: which groups.
    """
    # `uv run` names itself; it need not be on the path.
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        return "uv is not on the PATH"
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["UV_PROJECT_ENVIRONMENT"] = str(folder)
    argv = [program, "sync", "--quiet", "--project", str(project), "--python", sys.executable, *chosen]
    try:
        subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, timeout=_PATIENCE_SECONDS)
    except subprocess.CalledProcessError as error:
        return f"uv sync: {(error.stderr or '').strip()[-300:]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"uv sync: {error}"
    return None
