"""TCP for httpcore whose every wait is cut to a deadline: of connecting, of TLS, of each read and each write.

A time-out of httpx bounds one read, not the sum of them: headers that drip, one byte at a time, would never end.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any

import httpcore

from shared.deadline import Deadline

_SHORTEST = 0.001  # 0 would mean: do not wait, and fail in another way


class BoundedNetwork(httpcore.NetworkBackend):
    """The network as a thread sees it whose request has a deadline. One per connection pool, for any number of threads.

    Looking up a name is bounded by the system's resolver alone: nothing interrupts it.
    """

    def __init__(self) -> None:
        self._network = httpcore.SyncBackend()
        self._of_thread = threading.local()

    @contextmanager
    def until(self, deadline: Deadline) -> Iterator[None]:
        """Cut every wait of this thread to that deadline."""
        self._of_thread.deadline = deadline
        try:
            yield
        finally:
            self._of_thread.deadline = None

    def cut(self, timeout: float | None) -> float | None:
        """That many seconds, or what is left to this thread."""
        deadline: Deadline | None = getattr(self._of_thread, "deadline", None)
        if deadline is None:
            return timeout
        left = max(deadline.remaining, _SHORTEST)
        return left if timeout is None else min(timeout, left)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection, as httpcore asks for it."""
        stream = self._network.connect_tcp(host, port, self.cut(timeout), local_address, socket_options)
        return _Stream(stream, self)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, network: BoundedNetwork) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.cut(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.cut(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._network.cut(timeout)), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
