"""Keeps the processes of a stack, and ends them all when its owner is gone, however that went.

`python -m sandbox.keeper FOLDER` reads one JSON line per process from standard input, starts it and answers with a
line. The end of standard input is the end of the stack: a killed owner cannot say goodbye, but its pipe closes. Every
process is then told to end, killed if it does not, and FOLDER is removed. The keeper lives in a session of its own, so
that a Ctrl-C in the terminal reaches only the owner.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

_PATIENCE_SECONDS = 8.0


def main(folder: Path) -> None:
    """Keep processes until standard input ends or a signal says so."""
    kept: list[subprocess.Popen[bytes]] = []
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        for line in sys.stdin:
            process = _start(json.loads(line))
            kept.append(process)
            print(json.dumps({"pid": process.pid}), flush=True)  # noqa: T201 # the answer to the owner
    finally:
        end(kept)
        shutil.rmtree(folder, ignore_errors=True)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _start(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    with Path(order["log"]).open("ab") as log:
        return subprocess.Popen(
            order["argv"],
            env=order["env"],
            cwd=order["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # its children end with it
        )


def end(kept: list[subprocess.Popen[bytes]]) -> None:
    """Tell every process to end, the youngest first; kill those that take too long, and whatever they started."""
    for process in reversed(kept):
        if process.poll() is None:
            process.terminate()
            os.killpg(process.pid, signal.SIGCONT)  # one that is stopped cannot end
    until = time.monotonic() + _PATIENCE_SECONDS
    for process in kept:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
            process.wait()
        kill_group(process.pid)


def kill_group(leader: int) -> None:
    """Kill what is left of a process and its children."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
