"""Sends jobs to the workers of one system: `python send.py MODULE`, in that system's environment.

Reads `{"jobs": [ids], "files": how many each}` from each line of standard input, sends a message for each job, one
after the other, and answers with a line `{"began", "ended"}` (CLOCK_MONOTONIC). Ends with standard input.
"""

import asyncio
import importlib
import inspect
import json
import sys
import time
from types import ModuleType


async def main(peer: ModuleType) -> None:
    """Serve orders. A module has `send(job, files)`, and `begin()` where something must be opened first."""
    if hasattr(peer, "begin"):
        await peer.begin()
    for line in sys.stdin:
        order = json.loads(line)
        began = time.monotonic()
        for job in order["jobs"]:
            sent = peer.send(job, order["files"])
            if inspect.isawaitable(sent):
                await sent
        sys.stdout.write(json.dumps({"began": began, "ended": time.monotonic()}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(importlib.import_module(sys.argv[1])))
