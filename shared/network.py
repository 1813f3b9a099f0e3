"""TCP for httpcore whose every wait is cut to a deadline: of connecting, of TLS, of each read and each write.

A time-out of httpx bounds one read, not the sum of them: headers that drip, one byte at a time, would never end.
And a pool that reuses no connection on which more came than was asked for.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any

import httpcore

from shared.deadline import Deadline

Resolve = Callable[[str, int], list[str]]
"""The addresses of a host. It may refuse by raising: a connection is made to what it returned, and to nothing else."""

_WRITTEN_AT_ONCE = 65_536  # bytes: httpcore gives each piece of a write the same time again


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system looks them up. Raises httpcore.ConnectError if there is no such name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for a name that no system could look up
        raise httpcore.ConnectError(f"{host} cannot be looked up: {error}") from error
    return [socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0] for *_, address in found]


class BoundedNetwork(httpcore.NetworkBackend):
    """The network as a thread sees it whose request has a deadline. One per connection pool, for any number of threads.

    Looking up a name is bounded by the system's resolver alone: nothing interrupts it.

    Args:
        resolve: how names are looked up, once per connection, and which addresses will do.
    """

    def __init__(self, resolve: Resolve = addresses_of) -> None:
        self._network, self._resolve = httpcore.SyncBackend(), resolve
        self._of_thread = threading.local()

    @contextmanager
    def until(self, deadline: Deadline) -> Iterator[None]:
        """Cut every wait of this thread to that deadline."""
        self._of_thread.deadline = deadline
        try:
            yield
        finally:
            del self._of_thread.deadline

    def cut(self, timeout: float | None, over: type[httpcore.TimeoutException]) -> float | None:
        """That many seconds, or what is left to this thread.

        Raises `over` if nothing is left, even where no wait would be needed: who sends without a pause never lets
        another time-out pass.
        """
        left: float = self._of_thread.deadline.remaining
        if not left:
            raise over("no time is left")
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
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._resolve(host, port):
            # One by one, since httpcore would give each of them the same time.
            try:
                bounded = self.cut(timeout, httpcore.ConnectTimeout)
                return _Stream(self._network.connect_tcp(address, port, bounded, local_address, socket_options), self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, network: BoundedNetwork) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.cut(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for begin in range(0, len(buffer), _WRITTEN_AT_ONCE):
            bounded = self._network.cut(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[begin : begin + _WRITTEN_AT_ONCE], bounded)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            bounded = self._network.cut(timeout, httpcore.ConnectTimeout)
        except httpcore.ConnectTimeout:
            self.close()  # as httpcore's own does: who asked for TLS holds nothing else to close
            raise
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, bounded), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Pool(httpcore.ConnectionPool):
    """The connections to one backend, without retries: there is one layer of them, above the breaker."""

    def __init__(self, network: BoundedNetwork, ssl_context: SSLContext, slots: int, kept_alive: float) -> None:
        self._of_each: dict[str, Any] = {
            "ssl_context": ssl_context,
            "keepalive_expiry": kept_alive,
            "network_backend": network,
            "retries": 0,
        }
        super().__init__(max_connections=slots, max_keepalive_connections=slots, **self._of_each)

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        """A connection, as httpcore asks for it."""
        return _Connection(origin=origin, **self._of_each)


class _Connection(httpcore.HTTPConnection):
    """One that ends with an answer that was longer than it said: the rest would be read as the next tenant's answer."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._claim = threading.Lock()

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        # The pool may give an idle connection to several, of whom one finds it so; nothing is read while it is idle.
        if not self._claim.acquire(blocking=False):
            raise httpcore.ConnectionNotAvailable
        try:
            if self._connection is not None and not self.is_available():
                raise httpcore.ConnectionNotAvailable
            return super().handle_request(request)
        finally:
            self._claim.release()

    def is_available(self) -> bool:
        return super().is_available() and not self._has_surplus()

    def has_expired(self) -> bool:
        return super().has_expired() or (self.is_idle() and self._has_surplus())

    def _has_surplus(self) -> bool:
        # httpcore does not look there, nor let us look: what h11 has read and nobody asked for.
        state = getattr(self._connection, "_h11_state", None)
        return state is not None and bool(state.trailing_data[0])
