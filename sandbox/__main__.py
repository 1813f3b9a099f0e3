"""`python -m sandbox`: start the reference backend.

The imports are inside `main`, so that a mistake in the environment is told in one line and not in a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; the rest of the settings are environment variables (`sandbox/config.py`)."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--bind", default="127.0.0.1:8000", help="HOST:PORT; port 0 takes a free one")
    parser.add_argument("--threads", type=int, default=16, help="requests served at the same time")
    parser.add_argument("--ready-file", type=Path, help="gets the base URL once the server answers")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM. Returns 2 when the environment cannot be used."""
    from sandbox.config import Config, ConfigError  # noqa: PLC0415

    options = parse(argv)
    os.environ["SANDBOX_THREADS"] = str(options.threads)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandbox.settings")
    try:
        config = Config.from_env()
    except ConfigError as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 2
    from sandbox.server import serve  # noqa: PLC0415

    serve(config, options.bind, options.threads, options.ready_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
