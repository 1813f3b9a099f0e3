"""`python -m sandbox`: start the reference backend. Its settings are environment variables (`sandbox/config.py`)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sandbox.config import Config, ConfigError


def main() -> int:
    """Serve until SIGTERM. Returns 2 when the environment cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--bind", default="127.0.0.1:8000", help="HOST:PORT; port 0 takes a free one")
    parser.add_argument("--ready-file", type=Path, help="gets the base URL once the server answers")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandbox.settings")
    try:
        config = Config.from_env()
    except ConfigError as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 2
    # Only now: the modules behind it read the settings, and a mistake there is told in one line, not in a traceback.
    from sandbox.server import serve  # noqa: PLC0415

    serve(config, options.bind, options.ready_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
