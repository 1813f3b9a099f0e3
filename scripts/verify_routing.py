#!/usr/bin/env python3
"""Prove the routing table: a call of `workers routing verify`, whose options may follow."""

import sys

from scripts.commands.processes import become

if __name__ == "__main__":
    become("shared.commands.routing", ["verify", *sys.argv[1:]])
