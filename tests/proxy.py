"""A proxy before a server, which breaks connections when it is told to."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_AT_ONCE = 65_536


class Proxy:
    """Forwards bytes both ways.

    Attributes:
        url: the server's address, by way of this.
        deaf_after: once a client has sent this, nothing more that clients send on the connections of now gets through,
            though what the server says does.
        closed: whether new connections are broken at once.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        self.url = parts._replace(netloc=f"{user}127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        self.deaf_after: bytes | None = None
        self.closed = False
        self._deaf: set[socket.socket] = set()
        self._clients: set[socket.socket] = set()
        self._open: dict[socket.socket, socket.socket] = {}  # client and server, both ways
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Break every connection. How many there were."""
        found = list(self._open)
        for one in found:
            _break(one)
        return len(found) // 2

    def end(self) -> None:
        """Break every connection, and take no more."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.closed:
                    _break(client)
                    continue
                server = socket.create_connection(self._target)
                self._open |= {client: server, server: client}
                self._clients.add(client)
                for one in (client, server):
                    threading.Thread(target=self._pump, args=(one,), daemon=True).start()

    def _pump(self, one: socket.socket) -> None:
        other = self._open[one]
        with suppress(OSError):
            while data := one.recv(_AT_ONCE):
                if one not in self._deaf:
                    other.sendall(data)
                if one in self._clients and self.deaf_after and self.deaf_after in data:
                    self._deaf.update(self._clients)
                    self.deaf_after = None
        for end in (one, other):
            self._open.pop(end, None)
            self._clients.discard(end)
            self._deaf.discard(end)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _break(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy that ends with this block."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.end()
