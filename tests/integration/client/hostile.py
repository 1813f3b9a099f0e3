"""A server on loopback that does what its script says, down to the byte, and counts at the socket.

No HTTP library stands between: none would send half a header, or answer what was not asked.
"""

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_LOOK_SECONDS = 0.005
_CHUNK = 65_536


class Received:
    """One request, as it came."""

    def __init__(self, head: bytes, body: bytes, connection: int) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body, self.connection, self.at = body, connection, time.monotonic()

    @property
    def name(self) -> str:
        """The id in the path of a request for an execution or one of its rows."""
        return self.target.partition("?")[0].rstrip("/").rpartition("/")[2]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, number: int, gone: threading.Event) -> None:
        self.socket, self.number, self.gone = sock, number, gone
        self._read = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def forever(self, data: bytes, every: float = 0.0) -> None:
        """Send that again and again, until the other end has had enough."""
        while not self.gone.is_set():
            self.send(data)
            if every:
                self.gone.wait(every)

    def silence(self) -> None:
        """Keep the connection and say nothing, until the other end has had enough."""
        self.socket.recv(_CHUNK)

    def reset(self) -> None:
        """End the connection as a process does that died: by RST, and not by FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.socket.close()

    @property
    def closed(self) -> bool:
        return self.socket.fileno() < 0

    def request(self) -> Received | None:
        """The next request; None if the other end closed instead."""
        while b"\r\n\r\n" not in self._read:
            more = self.socket.recv(_CHUNK)
            if not more:
                return None
            self._read += more
        head, _, rest = self._read.partition(b"\r\n\r\n")
        received = Received(head, b"", self.number)
        length = int(received.headers.get("content-length", 0))
        while len(rest) < length:
            rest += self.socket.recv(_CHUNK)
        received.body, self._read = rest[:length], rest[length:]
        return received


Script = Callable[[Received, Peer], None]
Greeting = Callable[[Peer], None]


class HostileServer:
    """Answers each request by its script, on a thread per connection; a script that closed the peer ends it.

    Attributes:
        connects: when each connection was accepted.
        requests: all that came whole.
        greet: what is done with a connection before anything is read from it.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None, greet: Greeting | None = None) -> None:
        self.script, self.greet, self._tls = script, greet, tls
        self.connects: list[float] = []
        self.requests: list[Received] = []
        self._gone = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(_LOOK_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept)
        self._serving: list[threading.Thread] = []
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/internal"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._gone.set()
        self._accepting.join()
        self._listener.close()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._serving:
            thread.join()

    def forget(self) -> None:
        """Count anew, once nobody is served any more."""
        for thread in self._serving:
            thread.join()
        self._serving, self.connects, self.requests = [], [], []

    def names(self) -> list[str]:
        return [request.name for request in list(self.requests)]

    def _accept(self) -> None:
        while not self._gone.is_set():
            with suppress(TimeoutError):
                accepted, _ = self._listener.accept()
                self.connects.append(time.monotonic())
                self._open.add(accepted)
                thread = threading.Thread(target=self._serve, args=(accepted, len(self.connects)))
                self._serving = [one for one in self._serving if one.is_alive()] + [thread]
                thread.start()

    def _serve(self, accepted: socket.socket, number: int) -> None:
        peer = Peer(accepted, number, self._gone)
        # The other end may leave at any point: that is what these tests make it do.
        with suppress(OSError):
            if self.greet is not None:
                self.greet(peer)
            if self._tls is not None and not peer.closed:
                peer.socket = self._tls.wrap_socket(accepted, server_side=True)
            while not peer.closed and (request := peer.request()) is not None:
                self.requests.append(request)
                self.script(request, peer)
        peer.socket.close()
        accepted.close()
        self._open.discard(accepted)


def head(status: str = "200 OK", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


def answer(body: Any, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer in JSON."""
    content = json.dumps(body).encode()
    return head(status, Content_Type="application/json", Content_Length=str(len(content)), **headers) + content


def execution(execution_id: str = "ex", workflow_id: str = "wf") -> dict[str, Any]:
    """What the backend answers for an execution."""
    row = {"id": execution_id, "workflow_id": workflow_id, "status": "PENDING"}
    return {"execution": row, "source_config": {"is_api": True}}


def well(request: Received, peer: Peer) -> None:
    """Answer as the backend does: the execution of the id that was asked for, or a run's end."""
    tools = request.target.endswith("/execute-file/")
    peer.send(answer({"status": "COMPLETED", "result": {}} if tools else execution(request.name)))


def reset(_request: Received, peer: Peer) -> None:
    peer.reset()


def reset_at_once(peer: Peer) -> None:
    peer.reset()
