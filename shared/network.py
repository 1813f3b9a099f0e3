"""TCP for httpcore whose every wait is cut to a deadline: of connecting, of TLS, of each read and each write.

A time-out of httpx bounds one read, not the sum of them: headers that drip, one byte at a time, would never end.
And a pool of connections, which reuses none on which more came than was asked for.
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


class Pool:
    """The connections to one backend, without retries: there is one layer of them, above the breaker.

    Who has one has it alone, and the one given back last is the next to be taken. httpcore's own pool looks at all of
    them twice for each request (with 64, a quarter of a worker's processor time), gives one to several who race for it,
    and keeps a place for whose wait in its queue is over. How many there are at once is for its users to bound.
    """

    def __init__(self, network: BoundedNetwork, ssl_context: SSLContext, kept_alive: float) -> None:
        self._of_each: dict[str, Any] = {
            "ssl_context": ssl_context,
            "keepalive_expiry": kept_alive,
            "network_backend": network,
            "retries": 0,
        }
        self._idle: list[httpcore.HTTPConnection] = []
        self._lock, self._closed = threading.Lock(), False

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request, as httpx's transport asks for it. To close the answer's stream gives the connection back."""
        connection = self._take(request.url.origin)
        answer = connection.handle_request(request)  # where it raises, it has closed the connection
        answer.stream = _Lent(answer.stream, connection, self._give_back)
        return answer

    def close(self) -> None:
        """Close every connection: those that are lent, when they are given back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    def _take(self, origin: httpcore.Origin) -> httpcore.HTTPConnection:
        with self._lock:
            while len(self._idle) > 1 and self._idle[0].has_expired():
                self._idle.pop(0).close()
            while self._idle:
                connection = self._idle.pop()
                fits = connection.can_handle_request(origin)
                if fits and not connection.has_expired() and not _has_surplus(connection):
                    return connection
                connection.close()
        return httpcore.HTTPConnection(origin=origin, **self._of_each)

    def _give_back(self, connection: httpcore.HTTPConnection) -> None:
        with self._lock:
            if connection.is_idle() and not self._closed:
                self._idle.append(connection)
                return
        connection.close()


class _Lent:
    """What is read of an answer, and its connection until then."""

    def __init__(
        self,
        stream: Any,
        connection: httpcore.HTTPConnection,
        give_back: Callable[[httpcore.HTTPConnection], None],
    ) -> None:
        self._stream, self._connection, self._give_back = stream, connection, give_back
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        if not self._closed:  # given back twice, it would be lent to two
            self._closed = True
            self._stream.close()
            self._give_back(self._connection)


def _has_surplus(connection: httpcore.HTTPConnection) -> bool:
    """Whether an answer was longer than it said: the rest would be read as the next tenant's answer."""
    # httpcore does not look there, nor let us look: what h11 has read and nobody asked for.
    state = getattr(connection._connection, "_h11_state", None)  # noqa: SLF001
    return state is not None and bool(state.trailing_data[0])
