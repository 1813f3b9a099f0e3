"""The client of the internal API: one call for every request, `retry( breaker( send ) )`, and the connections under it.

What there is to ask, method by method: `shared/api_executions.py`, `shared/api_platform.py` and
`shared/api_installation.py`.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

import httpx
from pydantic import BaseModel

from monitoring.prometheus_metrics import (
    BACKEND_REQUESTS,
    BACKEND_RETRIES,
    BACKEND_SECONDS,
    CIRCUIT_CHANGES,
    CIRCUIT_STATE,
    CIRCUIT_STATES,
)
from shared import backend_protocol as protocol
from shared.api_executions import ExecutionsAPI
from shared.api_installation import InstallationAPI
from shared.api_platform import PlatformAPI
from shared.backend_protocol import Endpoint, Request, RouteGroup
from shared.backpressure import Gate
from shared.circuit_breaker import BreakerPolicy, CircuitBreaker, Outcome
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import (
    AnswerTooLargeError,
    BackendBusyError,
    BackendFailedError,
    BackendRefusedError,
    BackendUnavailableError,
    BackendUnreachableError,
    CircuitOpenError,
    WorkerError,
)
from shared.logging_utils import get_logger
from shared.network import BoundedNetwork, Pool
from shared.passage import http_headers
from shared.retry_utils import RetryPolicy
from shared.tracing import span

M = TypeVar("M", bound=BaseModel)

log = get_logger(__name__)

_KEPT_ALIVE_SECONDS = 15.0
_OUTCOMES: tuple[tuple[type[WorkerError], str], ...] = (
    (BackendRefusedError, "refused"),
    (BackendBusyError, "busy"),
    (BackendFailedError, "failed"),
    (BackendUnreachableError, "unreachable"),
)
_READ = frozenset({b"content-type", b"retry-after", b"location"})


class OrganizationAPI(ExecutionsAPI, PlatformAPI):
    """The internal API for one organization. Every method raises as `InternalAPIClient.call` does."""


class InternalAPIClient(InstallationAPI):
    """The connections of one process to the backend. Thread-safe; made after a fork, never before it.

    Args:
        settings: address, key, times, and when the circuits open.
        slots: tasks that the process runs at once; a quarter more connections are kept at the most.
        sleep: how to wait; `Event.wait` ends the waits of a process that stops.
        transport: what carries the requests instead of the network.
    """

    def __init__(
        self,
        settings: Settings,
        slots: int = 10,
        sleep: Callable[[float], object] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = settings
        policy = RetryPolicy(
            settings.backend_attempts, settings.backend_backoff, sleep=sleep, before_wait=_say_what_is_repeated
        )
        self._repeated, self._once = policy, RetryPolicy(1, 0)
        room = threading.Semaphore(settings.backend_slow_requests or slots)
        self._gates = {group: Gate(group, None if group is RouteGroup.RECORDS else room, sleep) for group in RouteGroup}
        self._breakers = {group: _breaker(settings, group) for group in RouteGroup}
        self._network = BoundedNetwork()
        # More than may be slow: an execution's end finds one while every slot waits for tools.
        self._most = slots + max(1, slots // 4)
        self._connections = threading.BoundedSemaphore(self._most)
        self._base = f"{settings.backend_url}/"
        # A transport alone: httpx's client adds what must not be, redirects that carry the key to wherever they point,
        # proxies of the environment, cookies of one tenant that go with another's requests; and a tenth of the time.
        self._http = transport or Transport(Pool(self._network, _tls(settings), _KEPT_ALIVE_SECONDS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def for_organization(self, organization_id: str, within: Deadline | None = None) -> OrganizationAPI:
        """The API as that organization sees it, until that deadline."""
        return OrganizationAPI(self, organization_id, within)

    @property
    def circuits(self) -> dict[str, str]:
        """The state of each group's circuit: closed, open or half_open."""
        return {group.value: breaker.state for group, breaker in self._breakers.items()}

    def call(self, request: Request[M], organization_id: str | None = None, within: Deadline | None = None) -> M:
        """One logical request: all its attempts and waits take INTERNAL_API_TIMEOUT at most, and end by `within`.

        Raises:
            PayloadError: what the request is made of cannot be sent; nothing was.
            BackendUnavailableError: no usable answer within the attempts; its subclasses say why. CircuitOpenError:
                the backend was not asked, since it did not answer before.
            BackendRefusedError: a 4xx.
            AnswerTooLargeError: more than INTERNAL_API_MAX_RESPONSE_BYTES.
            DeadlineExceededError: `within` is over; the message says which steps spent the time.
        """
        if within is not None:
            within.check()
        asked = str(request.endpoint)
        seconds = self._settings.backend_timeout
        deadline = within.within(seconds, asked) if within is not None else Deadline.after(seconds, asked)
        headers = request.headers(self._settings.backend_key.reveal(), organization_id)
        sent = _Sent(request.endpoint, f"{self._base}{request.target}", headers, request.content())
        policy = self._repeated if request.repeatable else self._once
        attempts = 0

        def send() -> M:
            nonlocal attempts
            attempts += 1
            return self._attempt(sent, organization_id or "", deadline)

        try:
            return policy.run(send, deadline)
        except BackendUnavailableError as error:
            if within is not None and within.over:
                raise within.exceeded() from error
            raise
        finally:
            if attempts > 1:
                BACKEND_RETRIES.inc(attempts - 1, route=request.endpoint.route)

    def _attempt(self, sent: "_Sent[M]", tenant: str, deadline: Deadline) -> M:
        group = sent.endpoint.group
        deadline.guard()
        try:
            with self._gates[group].passing(deadline):
                return self._breakers[group].call(lambda: self._send(sent, deadline), tenant)
        except CircuitOpenError:
            BACKEND_REQUESTS.inc(route=sent.endpoint.route, status="none", outcome="circuit_open")
            raise

    def _send(self, sent: "_Sent[M]", deadline: Deadline) -> M:
        endpoint, answered, outcome, begun = sent.endpoint, "none", "unfinished", time.perf_counter()
        named = {"http.request.method": endpoint.method, "url.template": endpoint.route}
        with span("CLIENT", str(endpoint), **named) as say:
            try:
                with deadline.step(str(endpoint)):
                    status, headers, body = self._exchange(sent, deadline)
                answered = f"{status // 100}xx"
                answer = protocol.decode(endpoint, status, headers, body, self._settings.backend_key.hide)
                outcome = "ok"
            except WorkerError as error:
                outcome = next((name for kind, name in _OUTCOMES if isinstance(error, kind)), outcome)
                raise
            finally:
                say(outcome=outcome)
                BACKEND_REQUESTS.inc(route=endpoint.route, status=answered, outcome=outcome)
                BACKEND_SECONDS.observe(time.perf_counter() - begun, route=endpoint.route)
        return answer

    def _exchange(self, sent: "_Sent[M]", deadline: Deadline) -> tuple[int, dict[str, str], bytes]:
        settings, endpoint = self._settings, sent.endpoint
        patience = settings.backend_timeout
        if endpoint.group is RouteGroup.RECORDS:
            patience = min(patience, settings.backend_read)
        attempt = deadline.within(patience, str(endpoint))
        allotted = attempt.remaining
        times = {
            "connect": attempt.cut(settings.backend_connect),
            "read": allotted,
            "write": allotted,
            "pool": allotted,
        }
        try:
            with self._connection(attempt), self._network.until(attempt):
                answer = self._http.handle_request(
                    httpx.Request(
                        endpoint.method,
                        sent.url,
                        headers={**sent.headers, **http_headers()},
                        content=sent.content,
                        extensions={"timeout": times},
                    )
                )
                try:
                    return self._read(endpoint, answer)
                finally:
                    answer.close()
        except httpx.TransportError as error:
            # Who was not given time to answer has not failed to.
            cut_short = isinstance(error, httpx.TimeoutException) and allotted < patience / 2
            kind = BackendUnavailableError if cut_short else BackendUnreachableError
            said = settings.backend_key.hide(f"{endpoint}: {type(error).__name__}: {error}")
            # From nothing: a protocol error quotes what it could not read, which may be what we sent.
            raise kind(said) from None

    @contextmanager
    def _connection(self, attempt: Deadline) -> Iterator[None]:
        # Not in the pool's own queue: whose wait there ends just as a place becomes free, keeps the place for ever.
        if not self._connections.acquire(timeout=attempt.remaining):
            raise BackendUnavailableError(f"{attempt.what}: none of our {self._most} connections became free")
        try:
            yield
        finally:
            self._connections.release()

    def _read(self, endpoint: Endpoint[M], answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
        said = {name.lower(): value for name, value in answer.headers.raw}
        encodings = {value for name, value in answer.headers.raw if name.lower() == b"content-encoding"}
        if encodings - {b"identity"}:
            raise BackendFailedError(f"{endpoint} was answered in an encoding that was not asked for")
        largest = self._settings.backend_largest
        size, body = int(said.get(b"content-length", 0)), bytearray()
        chunks = answer.iter_bytes()
        while size <= largest and (chunk := next(chunks, None)) is not None:
            body += chunk
            size = max(size, len(body))
        if size > largest:
            raise AnswerTooLargeError(
                f"{endpoint} was answered with more than the {largest} bytes that are read: "
                "INTERNAL_API_MAX_RESPONSE_BYTES may be raised"
            )
        headers = {name.decode(): said[name].decode("latin-1") for name in _READ & said.keys()}
        return answer.status_code, headers, bytes(body)


@dataclass(frozen=True, slots=True)
class _Sent(Generic[M]):
    """A request as it goes over the network, as often as it goes."""

    endpoint: Endpoint[M]
    url: str
    headers: Mapping[str, str]
    content: bytes | None


def _say_what_is_repeated(error: BaseException | None, seconds: float) -> None:
    log.info("backend_request_repeated", seconds=round(seconds, 3), reason=str(error))


def _breaker(settings: Settings, group: RouteGroup) -> CircuitBreaker:
    def listen(before: str, after: str) -> None:
        log.warning("circuit_changed", group=group.value, before=before, after=after)
        CIRCUIT_STATE.set(CIRCUIT_STATES.index(after), group=group)
        CIRCUIT_CHANGES.inc(group=group, state=after)

    policy = BreakerPolicy(
        failures=settings.breaker_failures,
        rate=settings.breaker_rate,
        minimum_volume=settings.breaker_volume,
        window=settings.breaker_window,
        recovery=settings.breaker_recovery,
    )
    return CircuitBreaker(policy, _outcome_of, listen)


def _outcome_of(error: WorkerError) -> Outcome:
    """What a request proves that ended so: only silence and 5xx count against the backend, and a 4xx for it."""
    if isinstance(error, BackendRefusedError):
        return Outcome.ALIVE
    if isinstance(error, BackendBusyError):
        return Outcome.ALIVE if error.status < 500 else Outcome.UNKNOWN
    if isinstance(error, BackendUnreachableError):
        return Outcome.DEAD
    return Outcome.DOUBTFUL if isinstance(error, BackendFailedError) else Outcome.UNKNOWN


class Transport(httpx.HTTPTransport):
    """httpx's own, over a pool whose network is ours: httpx has no argument for it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool  # type: ignore[assignment] # of a pool it asks what ours has


def _tls(settings: Settings) -> ssl.SSLContext:
    """Whom we trust: httpx's public authorities, or those of INTERNAL_API_CA_BUNDLE alone."""
    if settings.backend_url.startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; loading authorities takes time and memory
    context = (
        ssl.create_default_context(cafile=settings.backend_ca)
        if settings.backend_ca
        else httpx.create_ssl_context(trust_env=False)
    )
    if settings.backend_client_cert:
        context.load_cert_chain(settings.backend_client_cert, settings.backend_client_key, password="")
    return context
