"""A handle on one `child`: start it, give it a document, kill it when it takes too long.

A process and not a thread, because reading a PDF is Python code that holds the interpreter for seconds, and every
request of the internal API would wait for it; and because a document may loop for ever or take the process with it,
which must cost that document and nothing else. Not a ProcessPoolExecutor: it cannot kill one of its processes, and
is broken as a whole when one dies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sandbox.backend.http import log

_ROOT = Path(__file__).resolve().parents[3]
# The child gets a clean environment: no key and no address of a server.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")


class ToolError(Exception):
    """The tool could not do this document; the text is told to the worker."""


class ToolProcess:
    """One child, started when first needed and again after it died. Used by one thread."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def run(self, request: Mapping[str, Any], limit_seconds: float) -> dict[str, Any]:
        """The child's answer to that request, or ToolError."""
        child = self._running()
        timed_out = threading.Event()
        timer = threading.Timer(limit_seconds, self._give_up, [child, timed_out])
        timer.start()
        try:
            line = _ask(child, json.dumps(request))
        finally:
            timer.cancel()
        if not line.endswith("\n"):  # it died, perhaps in the middle of its answer
            self._end()
            why = f"took longer than {limit_seconds:g} s" if timed_out.is_set() else "ended the tool's process"
            raise ToolError(f"the document {why}")
        answer = cast("dict[str, Any]", json.loads(line))
        if "error" in answer:
            raise ToolError(answer["error"])
        return cast("dict[str, Any]", answer["result"])

    def _end(self) -> None:
        """End the child, if there is one, and take its exit status."""
        child, self._child = self._child, None
        if child is None:
            return
        # Leaving the `with` closes the pipes and waits.
        with child:
            child.kill()

    def _running(self) -> subprocess.Popen[str]:
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            self._child = subprocess.Popen(
                [sys.executable, "-m", "sandbox.backend.tools.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                cwd=_ROOT,
                env=environment,
            )
        return self._child

    @staticmethod
    def _give_up(child: subprocess.Popen[str], timed_out: threading.Event) -> None:
        log.warning("tool process %d is over its time and is killed", child.pid)
        timed_out.set()
        child.kill()


def _ask(child: subprocess.Popen[str], request: str) -> str:
    """The child's next line; empty when it died."""
    if child.stdin is None or child.stdout is None:
        return ""
    try:
        child.stdin.write(f"{request}\n")
        child.stdin.flush()
        return child.stdout.readline()
    except (BrokenPipeError, ValueError):
        return ""
