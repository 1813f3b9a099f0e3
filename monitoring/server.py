"""One small HTTP server in a process: pages by their path, each answered in a thread of its own.

The standard library's: 24 MB less than a framework. It listens where it is told, and reads nothing but the request's
line and headers.
"""

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_PATIENCE_SECONDS = 5.0  # for a client that sends or reads slowly
_MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says.

    Attributes:
        body: as it is sent.
        status: of HTTP: 200, or 503 where something is not as it should be.
        kind: the content type.
    """

    body: bytes
    status: int = HTTPStatus.OK
    kind: str = "application/json"


Page = Callable[[str], Answer]


def as_json(said: Mapping[str, Any], *, ok: bool = True) -> Answer:
    """A page of JSON; 503 unless it is well."""
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(json.dumps(said, default=str).encode() + b"\n", status)


class HealthServer:
    """Answers from when it is started until the process ends.

    Args:
        host: the address to listen on.
        port: the port; 0 takes any that is free.
        pages: by their paths; each is given the request's `Accept`.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = _Server((host, port), pages, family)
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        """Answer, in threads that end with the process."""
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def leave(self) -> None:
        """In a forked child: let go of the socket, which is the parent's."""
        self._server.socket.close()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64  # or who comes while others do waits for TCP to try again

    def __init__(self, at: tuple[str, int], pages: Mapping[str, Page], family: socket.AddressFamily) -> None:
        self.address_family = family
        self.pages = pages
        self._open: list[Any] = []  # connections, the oldest first
        self._lock = threading.Lock()
        super().__init__(at, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread. Of too many the oldest goes: pages take seconds, so it is one that does not ask."""
        with self._lock:
            self._open.append(request)
            oldest = self._open.pop(0) if len(self._open) > _MOST_AT_ONCE else None
        if oldest is not None:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread closes it
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The standard library's."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock, suppress(ValueError):  # it may be the one that had to go
                self._open.remove(request)

    def handle_error(self, *_: Any) -> None:
        """A client that went away is its own business; a page that fails is ours."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logging.getLogger(__name__).error("page_failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_SECONDS
    server_version, sys_version = "workers", ""

    def do_GET(self) -> None:  # the standard library's name
        """Answer a page."""
        try:
            page = self.server.pages.get(urlsplit(self.path).path.rstrip("/"))
        except ValueError:  # no address at all
            page = None
        found = page(self.headers.get("Accept", "")) if page else self._nothing()
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        self.send_header("Content-Length", str(len(found.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found.body)

    do_HEAD = do_GET  # noqa: N815 # likewise

    def _nothing(self) -> Answer:
        said = {"error": "there is no such page", "pages": sorted(self.server.pages)}
        return Answer(json.dumps(said).encode() + b"\n", HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the standard library's name
        """Nothing: probes come every few seconds."""
