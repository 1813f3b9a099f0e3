"""TLS: who is trusted, and who is told the key."""

import gc
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import trustme

from shared.errors import BackendUnreachableError
from tests.integration.client.clients import HASTY, STURDY, MakeClient, MakeServer
from tests.integration.client.faults import silent
from tests.integration.client.hostile import Peer

HOST = "127.0.0.1"
OURS = trustme.CA()
PAST = datetime.now(UTC) - timedelta(days=2)


def offering(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def demanding() -> ssl.SSLContext:
    """Of a backend that asks for a certificate of ours."""
    context = offering(OURS.issue_cert(HOST))
    OURS.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    OURS.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def test_a_backend_of_our_authority_is_trusted(bundle: str, serve: MakeServer, connect: MakeClient) -> None:
    server = serve(tls=offering(OURS.issue_cert(HOST)))
    api = connect(server.url, INTERNAL_API_CA_BUNDLE=bundle).for_organization("org")
    assert [api.execution(name).execution.id for name in "ab"] == ["a", "b"]
    assert len(server.connects) == 1


@pytest.mark.parametrize(
    ("issue", "says"),
    [
        (lambda: OURS.issue_cert(HOST, not_before=PAST, not_after=PAST + timedelta(days=1)), "expired"),
        (lambda: OURS.issue_cert("backend.invalid"), "IP address mismatch"),
        (lambda: trustme.CA().issue_cert(HOST), "unable to get local issuer"),
    ],
    ids=["expired", "another-name", "another-authority"],
)
def test_who_is_not_trusted_is_never_told_the_key(
    issue: Callable[[], trustme.LeafCert], says: str, bundle: str, serve: MakeServer, connect: MakeClient
) -> None:
    server = serve(tls=offering(issue()))
    with pytest.raises(BackendUnreachableError, match=says):
        connect(server.url, INTERNAL_API_CA_BUNDLE=bundle).for_organization("org").execution("ex")
    assert len(server.connects) == 1
    assert server.requests == []


def test_who_vouches_for_himself_is_not_trusted(
    bundle: str, tmp_path: Path, serve: MakeServer, connect: MakeClient
) -> None:
    stranger, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for part in (stranger.private_key_pem, stranger.cert_pem):
        part.write_to_path(tmp_path / "self.pem", append=True)
    context.load_cert_chain(tmp_path / "self.pem")
    server = serve(tls=context)
    with pytest.raises(BackendUnreachableError, match="self-signed"):
        connect(server.url, INTERNAL_API_CA_BUNDLE=bundle).for_organization("org").execution("ex")
    assert server.requests == []


def test_our_authority_is_none_of_the_public_ones(serve: MakeServer, connect: MakeClient) -> None:
    server = serve(tls=offering(OURS.issue_cert(HOST)))
    with pytest.raises(BackendUnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(server.url).for_organization("org").execution("ex")
    assert server.requests == []


@pytest.mark.parametrize("apart", [False, True], ids=["one-file", "two-files"])
def test_our_certificate_is_shown_where_one_is_asked_for(
    apart: bool,
    bundle: str,
    tmp_path: Path,
    serve: MakeServer,
    connect: MakeClient,
) -> None:
    ours, path = OURS.issue_cert("worker.invalid"), tmp_path / "worker.pem"
    (ours.cert_chain_pems[0] if apart else ours.private_key_and_cert_chain_pem).write_to_path(path)
    files = {"INTERNAL_API_CLIENT_CERT": str(path)}
    if apart:
        ours.private_key_pem.write_to_path(tmp_path / "worker.key")
        files["INTERNAL_API_CLIENT_KEY"] = str(tmp_path / "worker.key")
    server = serve(tls=demanding())
    api = connect(server.url, INTERNAL_API_CA_BUNDLE=bundle, **files).for_organization("org")
    assert api.execution("ex").execution.id == "ex"


def test_without_our_certificate_such_a_backend_is_unreachable(
    bundle: str, serve: MakeServer, connect: MakeClient
) -> None:
    server = serve(tls=demanding())
    with pytest.raises(BackendUnreachableError):
        connect(server.url, INTERNAL_API_CA_BUNDLE=bundle).for_organization("org").execution("ex")
    assert server.requests == []


def drip(peer: Peer) -> None:
    peer.forever(b"\x16", 0.01)


@pytest.mark.parametrize("greet", [Peer.silence, drip], ids=["silence", "drip"])
def test_a_handshake_ends_in_time(greet: Callable[[Peer], None], serve: MakeServer, connect: MakeClient) -> None:
    with pytest.raises(BackendUnreachableError, match=r"ConnectTimeout|SSL"):
        connect(serve(greet=greet).url.replace("http:", "https:"), **HASTY).for_organization("org").execution("ex")


def test_silence_after_a_handshake_ends_in_time(bundle: str, serve: MakeServer, connect: MakeClient) -> None:
    server = serve(silent, tls=offering(OURS.issue_cert(HOST)))
    with pytest.raises(BackendUnreachableError, match="ReadTimeout"):
        connect(server.url, INTERNAL_API_CA_BUNDLE=bundle, **HASTY).for_organization("org").execution("ex")


def test_a_backend_without_tls_is_not_taken_for_one(serve: MakeServer, connect: MakeClient) -> None:
    server = serve()
    with pytest.raises(BackendUnreachableError):
        connect(server.url.replace("http:", "https:"), **HASTY).for_organization("org").execution("ex")
    assert server.requests == []


def test_handshakes_that_fail_leave_nothing(bundle: str, serve: MakeServer, connect: MakeClient) -> None:
    urls = [serve(tls=offering(trustme.CA().issue_cert(HOST))).url, serve(greet=Peer.close).url, serve(greet=drip).url]
    variables = {"INTERNAL_API_CA_BUNDLE": bundle, "INTERNAL_API_TIMEOUT": "0.1", **STURDY}
    clients = [connect(url.replace("http:", "https:"), **variables) for url in urls]
    held: list[int] = []
    for _ in range(3):
        for client in clients * 3:
            with pytest.raises(BackendUnreachableError):
                client.for_organization("org").execution("ex")
        gc.collect()
        held.append(sockets_to(urls))
    assert held == [0, 0, 0]


def sockets_to(urls: list[str]) -> int:
    ports = {urlsplit(url).port for url in urls}
    found = psutil.Process().net_connections("tcp")
    return sum(one.raddr.port in ports for one in found if one.raddr)
