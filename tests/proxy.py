"""A proxy before a server, which a test may break: it cuts, it refuses, it swallows."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

_AT_ONCE = 65_536
_PORTS = {"amqp": 5672, "redis": 6379}


@dataclass(eq=False)
class _Link:
    """A client and the server. Deaf drops what the client says, mute what the server says."""

    client: socket.socket
    server: socket.socket
    deaf: bool
    mute: bool
    dropped: bytes | None

    def close(self) -> None:
        for one in (self.client, self.server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Proxy:
    """Between clients and a server on loopback.

    Attributes:
        url: the server's address, by way of this.
        deaf_after: once a client has sent this, nothing more that clients send on the connections of now gets through,
            though what the server says does.
        dropped: on connections made from now on, answers that hold this are dropped.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        self._links: list[_Link] = []
        self._silent = False
        self.deaf_after: bytes | None = None
        self.dropped: bytes | None = None
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        self.url = parts._replace(netloc=f"{user}127.0.0.1:{self.port}").geturl()

    def swallow(self, *, deaf: bool, mute: bool) -> None:
        """From now on drop, on the connections there are, what clients say, what the server says, or both."""
        for link in self._links:
            link.deaf, link.mute = deaf, mute

    def swallow_everything(self) -> None:
        """Take connections, and let nothing through on any."""
        self._silent = True
        self.swallow(deaf=True, mute=True)

    def cut(self) -> int:
        """Close every connection. How many there were."""
        found = list(self._links)
        for link in found:
            self._close(link)
        return len(found)

    def down(self) -> None:
        """Close every connection and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def up(self) -> None:
        """Take connections again."""
        self._listener = self._listen(self.port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            link = _Link(client, server, self._silent, self._silent, self.dropped)
            self._links.append(link)
            for way in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(link, *way), daemon=True).start()

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_AT_ONCE):
                told = source is link.client
                swallowed = link.deaf if told else link.mute or (link.dropped is not None and link.dropped in data)
                if not swallowed:
                    sink.sendall(data)
                if told and self.deaf_after and self.deaf_after in data:
                    self.deaf_after = None
                    self.swallow(deaf=True, mute=False)
        self._close(link)

    def _close(self, link: _Link) -> None:
        link.close()
        with suppress(ValueError):  # whichever way ends last
            self._links.remove(link)


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy before the server of that address, which ends with this block."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.down()
