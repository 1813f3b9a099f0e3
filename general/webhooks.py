"""The connections to those who want to hear of executions: strangers, at addresses that strangers wrote down.

So an address is looked up once, judged, and what was judged is what is connected to (`general/addresses.py`); time is
bounded byte by byte (`shared/network.py`); and nothing of an answer is kept but its status.
"""

import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import httpx

from general.addresses import Guard
from shared.api_client import Transport
from shared.backend_protocol import retry_after
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import UndeliverableError
from shared.network import BoundedNetwork, Pool, Resolve, addresses_of

_CONNECT_SECONDS = 5.0  # for each address of a host
_READ_BYTES = 65_536
_REDIRECTS = 5
_REPEATED = frozenset({307, 308})
_TURNED = frozenset({301, 302, 303})  # clients make a GET of the POST
_OWN = {"User-Agent": "unstract-workers", "Accept-Encoding": "identity", "Connection": "close"}


@dataclass(frozen=True, slots=True)
class Post:
    """A webhook on its way.

    Attributes:
        url: where to, at this step.
        body: what it says.
        headers: who it is and what it is; for every receiver.
        credentials: for the origin of the first address alone.
    """

    url: httpx.URL
    body: bytes
    headers: Mapping[str, str]
    credentials: Mapping[str, str]

    def towards(self, location: str) -> "Post":
        """The same, at the address that a redirect names; another origin gets no credentials, then or later."""
        found = address(location, self.url)
        return replace(self, url=found, credentials=self.credentials if _origin(found) == _origin(self.url) else {})


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a webhook.

    Attributes:
        host: who was asked last.
        status: the HTTP status, or None where nobody answered.
        said: the status, or why there is none; for people.
        retry_after: seconds that the receiver asked us to wait.
    """

    host: str
    status: int | None
    said: str
    retry_after: float | None = None


class Webhooks:
    """The client of one process. Thread-safe; made after a fork, never before it.

    Args:
        settings: which networks of our own may be reached.
        resolve: how names are looked up.
        tls: whom we trust, instead of the public authorities.
    """

    def __init__(self, settings: Settings, resolve: Resolve = addresses_of, tls: ssl.SSLContext | None = None) -> None:
        self._network = BoundedNetwork(Guard(settings.webhook_networks, resolve))
        trusted = tls or httpx.create_ssl_context(trust_env=False)
        # Not kept alive: the next webhook to a host looks its address up anew, and finds no connection that died. A
        # transport alone: a client would follow redirects unjudged, have proxies look names up, and keep cookies.
        self._http = Transport(Pool(self._network, trusted, kept_alive=0.0))

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def send(self, post: Post, deadline: Deadline) -> Answer:
        """Send a webhook, and on to where it is redirected, all by the deadline.

        Raises:
            UndeliverableError: an address, the first or one of a redirect, that webhooks are not sent to.
        """
        for _ in range(_REDIRECTS + 1):
            answer, location = self._exchange(post, deadline)
            if answer.status in _TURNED:
                raise UndeliverableError(
                    f"the webhook's receiver at {answer.host} answered {answer.said}, a redirect that would turn the "
                    "POST into a GET: 307 and 308 are followed",
                    "refused",
                )
            if answer.status not in _REPEATED or location is None:
                return answer
            post = post.towards(location)
        raise UndeliverableError(
            f"a webhook was redirected more than {_REDIRECTS} times, at last by {answer.host}", "refused"
        )

    def _exchange(self, post: Post, deadline: Deadline) -> tuple[Answer, str | None]:
        host, left = post.url.host, deadline.remaining
        times = {"connect": min(_CONNECT_SECONDS, left), "read": left, "write": left, "pool": left}
        headers = httpx.Headers(_OWN)
        headers.update(dict(post.credentials))
        headers.update(dict(post.headers))
        request = httpx.Request("POST", post.url, headers=headers, content=post.body, extensions={"timeout": times})
        with self._network.until(deadline):
            try:
                answer = self._http.handle_request(request)
            except httpx.TransportError as error:
                # Its kind alone: a protocol error quotes what it could not read.
                return Answer(host, None, f"nothing ({type(error).__name__})"), None
            try:
                _skim(answer)
            finally:
                answer.close()
        status, said = answer.status_code, answer.headers
        return Answer(host, status, str(status), retry_after(said.get("retry-after"))), said.get("location")


def _skim(answer: httpx.Response) -> None:
    """Read the beginning of the rest, as a courtesy: who is cut off in the middle takes it for a failure.

    The status has said it all, so it is no failure of ours if the rest does not come.
    """
    size = 0
    with suppress(httpx.TransportError, httpx.StreamError):
        for chunk in answer.iter_raw():
            size += len(chunk)
            if size >= _READ_BYTES:
                return


def address(raw: str, base: httpx.URL | None = None) -> httpx.URL:
    """An address that webhooks may be sent to, as far as one sees from it; relative to another one, if one is given.

    Raises:
        UndeliverableError: it is none; the message does not show it, since it may be a credential.
    """
    try:
        found = base.join(raw) if base is not None else httpx.URL(raw)
        port = 80 if found.port is None else found.port
        usable = found.scheme in {"http", "https"} and bool(found.host) and not found.userinfo and 0 < port < 65_536
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise UndeliverableError(
            "the address of a webhook cannot be used: it must be an http or https address without user or password",
            "refused",
        )
    return found


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port  # httpx leaves a scheme's own port out
