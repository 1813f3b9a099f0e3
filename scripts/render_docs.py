#!/usr/bin/env python3
"""Write the tables of OPERATIONS.md that are made from the code; `--check` exits 1 if they are out of step."""

import sys

from scripts.commands.processes import become

if __name__ == "__main__":
    become("shared.commands.reference", sys.argv[1:])
