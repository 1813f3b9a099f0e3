"""One webhook over real sockets: where it goes, who is trusted, how long it takes, and what it leaves."""

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import urlsplit

import psutil
import pytest
import trustme

from general.webhooks import Post, address
from shared.deadline import Deadline
from shared.errors import UndeliverableError
from tests.integration.client.hostile import HostileServer, Peer, Received, answer, head
from tests.integration.webhooks.conftest import MakeReceiver, MakeWebhooks

OURS = trustme.CA()
LATE = 0.4  # what a thread may be late where two cores run all of it


def post(url: str) -> Post:
    return Post(address(url), b'{"a":1}', {"Content-Type": "application/json", "Idempotency-Key": "k"}, {"X-Auth": "s"})


def within(seconds: float = 5.0) -> Deadline:
    return Deadline.after(seconds, "a webhook")


def taken(_request: Received, peer: Peer) -> None:
    peer.send(answer({"ok": True}))


def at(server: HostileServer, name: str) -> str:
    return f"http://{name}:{server.port}/hook"


def says(status: str, **headers: str) -> Callable[[Received, Peer], None]:
    def script(_request: Received, peer: Peer) -> None:
        peer.send(answer({}, status, **headers))

    return script


def first_then(location: str, status: str = "307 Temporary Redirect") -> Callable[[Received, Peer], None]:
    """Redirect what comes for `/hook`, and take what comes for anything else."""

    def script(request: Received, peer: Peer) -> None:
        peer.send(answer({}, status, Location=location) if request.target == "/hook" else answer({}))

    return script


def test_a_webhook_arrives_whole(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    server = receive(taken)
    assert connect().send(post(at(server, "127.0.0.1")), within()).status == 200
    (came,) = server.requests
    assert (came.method, came.target, came.body) == ("POST", "/hook", b'{"a":1}')
    expected = {"content-type": "application/json", "idempotency-key": "k", "x-auth": "s", "connection": "close"}
    assert expected.items() <= came.headers.items()
    assert came.headers["host"] == f"127.0.0.1:{server.port}"
    assert came.headers.keys().isdisjoint({"cookie", "authorization"})


def test_a_name_is_looked_up_once_and_what_was_judged_is_what_is_connected_to(
    receive: MakeReceiver, connect: MakeWebhooks
) -> None:
    """A resolver that answers with an allowed address first, and then with another: the second is never asked for."""
    server, asked = receive(taken), list[str]()

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    sender = connect(rebinding)
    assert sender.send(post(at(server, "rebinding.invalid")), within()).status == 200
    assert asked == ["rebinding.invalid"]
    assert server.requests[0].headers["host"] == f"rebinding.invalid:{server.port}"


def test_a_name_that_leads_to_us_later_is_refused_then(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    """No connection is kept on which a judgement of before would count."""
    server, answers = receive(taken), [["127.0.0.1"], ["10.0.0.1"]]
    sender = connect(lambda _host, _port: answers.pop(0))
    assert sender.send(post(at(server, "rebinding.invalid")), within()).status == 200
    with pytest.raises(UndeliverableError, match=r"10\.0\.0\.1"):
        sender.send(post(at(server, "rebinding.invalid")), within())
    assert len(server.connects) == 1


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"])  # noqa: S104
def test_nothing_goes_to_ourselves(name: str, receive: MakeReceiver, connect: MakeWebhooks) -> None:
    server = receive(taken)
    with pytest.raises(UndeliverableError, match="not a public one"):
        connect(WEBHOOK_ALLOWED_NETWORKS="").send(post(at(server, name)), within())
    assert server.connects == []


def test_a_redirect_to_ourselves_is_refused(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    inside = receive(taken)
    outside = receive(first_then(at(inside, "inside.invalid")))
    places = {"outside.invalid": "127.0.0.1", "inside.invalid": "127.0.0.2"}
    sender = connect(lambda host, _port: [places[host]], WEBHOOK_ALLOWED_NETWORKS="127.0.0.1/32")
    with pytest.raises(UndeliverableError, match=r"inside\.invalid .*127\.0\.0\.2"):
        sender.send(post(at(outside, "outside.invalid")), within())
    assert (len(outside.requests), inside.connects) == (1, [])


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_is_followed_with_the_post(status: str, receive: MakeReceiver, connect: MakeWebhooks) -> None:
    server = receive(first_then("/moved", status))
    assert connect().send(post(at(server, "127.0.0.1")), within()).status == 200
    assert [(came.method, came.target, came.body) for came in server.requests] == [
        ("POST", "/hook", b'{"a":1}'),
        ("POST", "/moved", b'{"a":1}'),
    ]
    assert {came.headers["x-auth"] for came in server.requests} == {"s"}


def test_another_origin_is_not_told_the_credentials(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    other = receive(taken)
    server = receive(first_then(at(other, "127.0.0.1")))
    assert connect().send(post(at(server, "127.0.0.1")), within()).status == 200
    (came,) = other.requests
    assert "x-auth" not in came.headers
    assert (came.headers["idempotency-key"], came.body) == ("k", b'{"a":1}')


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other"])
def test_a_redirect_that_turns_a_post_into_a_get_is_refused(
    status: str, receive: MakeReceiver, connect: MakeWebhooks
) -> None:
    server = receive(first_then("/moved", status))
    with pytest.raises(UndeliverableError, match=f"{status[:3]}, a redirect that would turn the POST into a GET"):
        connect().send(post(at(server, "127.0.0.1")), within())
    assert len(server.requests) == 1


def test_redirects_in_a_circle_end(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    server = receive(says("307 Temporary Redirect", Location="/hook"))
    with pytest.raises(UndeliverableError, match="more than 5 times"):
        connect().send(post(at(server, "127.0.0.1")), within())
    assert len(server.requests) == 6


@pytest.mark.parametrize("location", ["ftp://a.invalid/", "http://u:p@127.0.0.1/", "file:///etc/passwd"])
def test_a_redirect_to_what_is_no_address_is_refused(
    location: str, receive: MakeReceiver, connect: MakeWebhooks
) -> None:
    with pytest.raises(UndeliverableError, match="cannot be used"):
        connect().send(post(at(receive(first_then(location)), "127.0.0.1")), within())


def test_a_redirect_to_nowhere_is_an_answer(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    server = receive(says("307 Temporary Redirect"))
    assert connect().send(post(at(server, "127.0.0.1")), within()).status == 307


def silence(_request: Received, peer: Peer) -> None:
    peer.silence()


def drip(_request: Received, peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    peer.forever(b"a", 0.02)


def reset(_request: Received, peer: Peer) -> None:
    peer.reset()


def nonsense(_request: Received, peer: Peer) -> None:
    peer.send(b"s3cret of theirs\r\n\r\n")
    peer.close()


@pytest.mark.parametrize("script", [silence, drip, reset, nonsense])
def test_who_does_not_answer_takes_no_longer_than_given(
    script: Callable[[Received, Peer], None], receive: MakeReceiver, connect: MakeWebhooks
) -> None:
    begun = time.monotonic()
    found = connect().send(post(at(receive(script), "127.0.0.1")), within(0.3))
    assert time.monotonic() - begun < 0.3 + LATE
    assert found.status is None
    assert "s3cret" not in found.said


def test_redirects_share_one_time(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    def slow(_request: Received, peer: Peer) -> None:
        peer.gone.wait(0.2)
        peer.send(answer({}, "307 Temporary Redirect", Location="/hook"))

    begun = time.monotonic()
    assert connect().send(post(at(receive(slow), "127.0.0.1")), within(0.5)).status is None
    assert time.monotonic() - begun < 0.5 + LATE


def endless(_request: Received, peer: Peer) -> None:
    peer.send(head(Content_Length="100000000000"))
    peer.forever(b"x" * 65_536)


def dripping_body(_request: Received, peer: Peer) -> None:
    peer.send(head(Content_Length="1000"))
    peer.forever(b"x", 0.02)


def broken_body(_request: Received, peer: Peer) -> None:
    peer.send(head(Transfer_Encoding="chunked") + b"zz\r\n")
    peer.close()


def packed(_request: Received, peer: Peer) -> None:
    peer.send(head(Content_Encoding="gzip", Content_Length="4") + b"none")


@pytest.mark.parametrize("script", [endless, dripping_body, broken_body, packed])
def test_the_status_has_said_it_all(
    script: Callable[[Received, Peer], None], receive: MakeReceiver, connect: MakeWebhooks
) -> None:
    begun = time.monotonic()
    assert connect().send(post(at(receive(script), "127.0.0.1")), within(0.5)).status == 200
    assert time.monotonic() - begun < 0.5 + LATE


def test_a_huge_answer_is_not_read(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    """It never ends, and its reader does at once, not when the time is over."""
    begun = time.monotonic()
    assert connect().send(post(at(receive(endless), "127.0.0.1")), within(20)).status == 200
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(("asked", "least", "most"), [("7", 7, 7), ("a date", 3_500, 3_600), ("soon", None, None)])
def test_who_asks_us_to_wait_is_heard(
    asked: str, least: float | None, most: float | None, receive: MakeReceiver, connect: MakeWebhooks
) -> None:
    if asked == "a date":
        asked = format_datetime(datetime.now(UTC) + timedelta(seconds=3_600), usegmt=True)
    server = receive(says("429 Too Many Requests", Retry_After=asked))
    found = connect().send(post(at(server, "127.0.0.1")), within()).retry_after
    if least is None or most is None:
        assert found is None
    else:
        assert found is not None
        assert least <= found <= most


def test_cookies_are_left_where_they_were(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    server, sender = receive(says("200 OK", Set_Cookie="a=b")), connect()
    for _ in range(2):
        sender.send(post(at(server, "127.0.0.1")), within())
    assert ["cookie" in came.headers for came in server.requests] == [False, False]


def offering(name: str, authority: trustme.CA = OURS) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    OURS.configure_trust(context)
    return context


def to_loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def test_a_certificate_is_for_the_name_though_the_address_is_connected_to(
    receive: MakeReceiver, connect: MakeWebhooks
) -> None:
    asked = list[str]()
    tls = offering("hooks.invalid")
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    server = receive(taken, tls=tls)
    url = f"https://hooks.invalid:{server.port}/hook"
    assert connect(to_loopback, trusting()).send(post(url), within()).status == 200
    assert asked == ["hooks.invalid"]


@pytest.mark.parametrize(
    ("name", "authority"), [("other.invalid", OURS), ("127.0.0.1", OURS), ("hooks.invalid", trustme.CA())]
)
def test_who_cannot_show_the_name_is_told_nothing(
    name: str, authority: trustme.CA, receive: MakeReceiver, connect: MakeWebhooks
) -> None:
    server = receive(taken, tls=offering(name, authority))
    url = f"https://hooks.invalid:{server.port}/hook"
    assert connect(to_loopback, trusting()).send(post(url), within()).status is None
    assert server.requests == []


def test_a_name_that_nobody_has_and_a_port_that_nobody_listens_on(connect: MakeWebhooks) -> None:
    assert connect().send(post("http://no-such-name.invalid/"), within()).status is None
    with HostileServer(taken) as gone:
        url = at(gone, "127.0.0.1")
    assert connect().send(post(url), within()).status is None


def test_the_next_address_of_a_name_is_tried(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    server = receive(taken)
    sender = connect(lambda _host, _port: ["127.0.0.9", "127.0.0.1"])
    assert sender.send(post(at(server, "two.invalid")), within()).status == 200


def test_no_connection_is_left(receive: MakeReceiver, connect: MakeWebhooks) -> None:
    urls = [at(receive(script), "127.0.0.1") for script in (taken, drip, endless, reset, nonsense)]
    sender = connect()
    for url in urls * 3:
        sender.send(post(url), within(0.2))
    ports = {urlsplit(url).port for url in urls}
    held = [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port in ports]
    assert [one for one in held if one.status == psutil.CONN_ESTABLISHED] == []
