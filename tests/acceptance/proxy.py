"""A TCP proxy that a test may break: it cuts, it refuses, it swallows."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class _Link:
    client: socket.socket
    server: socket.socket
    deaf: bool
    mute: bool
    dropped: bytes | None

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                told = source is self.client
                swallowed = self.deaf if told else self.mute or (self.dropped is not None and self.dropped in data)
                if not swallowed:
                    sink.sendall(data)
        self.close()

    def close(self) -> None:
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Proxy:
    """Between clients and a server on loopback.

    Attributes:
        port: where clients connect.
        dropped: on connections made from now on, answers that hold this are dropped.
    """

    dropped: bytes | None = None

    def __init__(self, target: int) -> None:
        self._target = target
        self._links: list[_Link] = []
        self._silent = False
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

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
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            link = _Link(client, server, self._silent, self._silent, self.dropped)
            self._links.append(link)
            for way in ((client, server), (server, client)):
                threading.Thread(target=link.pump, args=way, daemon=True).start()

    def swallow(self, *, deaf: bool, mute: bool) -> None:
        """From now on drop, on the connections there are, what clients say, what the server says, or both."""
        for link in self._links:
            link.deaf, link.mute = deaf, mute

    def swallow_everything(self) -> None:
        """Take connections, and let nothing through on any."""
        self._silent = True
        self.swallow(deaf=True, mute=True)

    def cut(self) -> None:
        """Close every connection."""
        for link in self._links:
            link.close()
        self._links.clear()

    def down(self) -> None:
        """Close every connection and take no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def up(self) -> None:
        """Take connections again."""
        self._listener = self._listen(self.port)


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy in front of that port."""
    one = Proxy(target)
    try:
        yield one
    finally:
        one.down()
