"""Injects the faults of `switches.py` into requests under `/internal/`, outside Django.

Outside, because a connection that breaks is not an answer: the exception has to reach the server, and Django would
turn it into a page. It also keeps the cost of a refused request near nothing.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.backend.stats import stats
from sandbox.backend.switches import Switches, switchboard

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]

# SO_LINGER with no time: closing the socket sends RST and not FIN.
_RESET = struct.pack("ii", 1, 0)
_LOOK_SECONDS = 0.02
_LONGEST_HOLD_SECONDS = 60


class FaultInjector:
    """A WSGI application round another."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if not path.startswith("/internal/"):
            return self._application(environ, start_response)
        switches = switchboard.current
        if switches.latency_seconds:
            time.sleep(switches.latency_seconds)
        if switchboard.happens(switches.rate_slow):
            stats.injected("slow")
            time.sleep(switches.slow_seconds)
        if switchboard.happens(switches.rate_reset):
            _reset(environ, "reset")
        refused = _refusal(path, switches)
        if refused is not None:
            return _answer(start_response, *refused)
        _hold(environ, "hold_request")
        answer = self._application(environ, start_response)
        # From here on the view has run and its transaction is committed.
        _hold(environ, "hold_answer")
        if switchboard.happens(switches.rate_reset_after):
            close = getattr(answer, "close", None)
            if close is not None:
                close()
            _reset(environ, "reset_after")
        return answer


def _hold(environ: Environ, switch: str) -> None:
    request = f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}"
    until = time.monotonic() + _LONGEST_HOLD_SECONDS
    counted = False
    while (end := getattr(switchboard.current, switch)) and request.endswith(end) and time.monotonic() < until:
        if not counted:
            stats.injected(switch)
            counted = True
        time.sleep(_LOOK_SECONDS)


def _refusal(path: str, switches: Switches) -> tuple[str, str] | None:
    if switches.without_buffer and "/webhook/buffer/" in path:
        return "404 Not Found", "switched to have no buffer"
    if switchboard.failing(path):
        stats.injected("500")
        return "500 Internal Server Error", "switched to answer 500"
    if switchboard.happens(switches.rate_503):
        stats.injected("503")
        return "503 Service Unavailable", "switched to be overloaded"
    return None


def _answer(start_response: Any, status: str, message: str) -> list[bytes]:
    body = json.dumps({"error": message}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if status.startswith("503"):
        headers.append(("Retry-After", "1"))
    start_response(status, headers)
    return [body]


def _reset(environ: Environ, name: str) -> None:
    """Make the server's closing of the connection a reset; ECONNRESET is what it closes quietly on."""
    stats.injected(name)
    client: socket.socket = environ["gunicorn.socket"]
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    raise ConnectionResetError(errno.ECONNRESET, "switched to break the connection")
