#!/usr/bin/env python3
"""Find imports that cross a wall, or fix those that moved: `uv run python scripts/fix_imports.py --help`."""

import sys

try:
    from scripts.imports.command import fix_imports
except ModuleNotFoundError as error:
    sys.exit(f"this needs {error.name}, which only a checkout has: uv run python scripts/fix_imports.py")

if __name__ == "__main__":
    fix_imports()
