"""What can be wrong with an answer: the script of each fault, and the one error in which it ends."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache

from shared.errors import (
    AnswerTooLargeError,
    BackendBusyError,
    BackendFailedError,
    BackendUnreachableError,
    WorkerError,
)
from tests.integration.client.clients import LARGEST
from tests.integration.client.hostile import Peer, Received, Script, answer, execution, head, reset

_JSON = "application/json"
_CHUNKED = head(Content_Type=_JSON, Transfer_Encoding="chunked")
_EVERY = 0.005  # seconds between the bytes that drip


@dataclass(frozen=True)
class Fault:
    """An answer that is none.

    Attributes:
        script: how it is given.
        error: its exact type.
        says: what the error's message matches.
        endless: whether the backend never ends it, so that the deadline must.
    """

    script: Script
    error: type[WorkerError]
    says: str
    endless: bool = False


def sends(*parts: bytes, then: Callable[[Peer], None] = Peer.close) -> Script:
    def script(_request: Received, peer: Peer) -> None:
        for part in parts:
            peer.send(part)
        then(peer)

    return script


def drips(begin: bytes, byte: bytes) -> Script:
    return sends(begin, then=lambda peer: peer.forever(byte, _EVERY))


def floods(begin: bytes, part: bytes) -> Script:
    return sends(begin, then=lambda peer: peer.forever(part))


def silent(_request: Received, peer: Peer) -> None:
    peer.silence()


@cache
def gzip_bomb() -> bytes:
    """A gibibyte of zeros in a megabyte: one block of 16 MiB, repeated, since a full flush makes each stand alone."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(16 << 20)
    first = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = first + again * 63
    return head(Content_Type=_JSON, Content_Encoding="gzip", Content_Length=str(len(packed))) + packed


def _tomorrow(_request: Received, peer: Peer) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(days=1, seconds=5), usegmt=True)
    peer.send(answer({"detail": "busy"}, "503 Service Unavailable", Retry_After=date))


def _with_length(length: str, body: bytes = b"{}") -> bytes:
    return head(Content_Type=_JSON, Content_Length=length) + body


def _flawed(body: bytes, **headers: str) -> Script:
    return sends(head(Content_Length=str(len(body)), **headers) + body)


_DEEP = b"[" * 30_000
_WRONG_TYPE = json.dumps(execution() | {"source_config": {"is_api": "perhaps"}}).encode()

FAULTS: dict[str, Fault] = {
    "reset-before-headers": Fault(reset, BackendUnreachableError, "ReadError"),
    "close-before-headers": Fault(sends(), BackendUnreachableError, "without sending a response"),
    "reset-in-headers": Fault(sends(b"HTTP/1.1 200 OK\r\nX: ", then=Peer.reset), BackendUnreachableError, "Error"),
    "reset-in-body": Fault(sends(_with_length("999"), then=Peer.reset), BackendUnreachableError, "ReadError"),
    "silence": Fault(silent, BackendUnreachableError, "ReadTimeout", endless=True),
    "slow-headers": Fault(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x"), BackendUnreachableError, "ReadTimeout", endless=True),
    "slow-status": Fault(drips(b"HTTP/1.1 200 ", b"O"), BackendUnreachableError, "ReadTimeout", endless=True),
    "slow-body": Fault(drips(_with_length("50000"), b" "), BackendUnreachableError, "ReadTimeout", endless=True),
    "slow-chunks": Fault(drips(_CHUNKED, b"1\r\n \r\n"), BackendUnreachableError, "ReadTimeout", endless=True),
    "endless-headers": Fault(floods(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 99), BackendUnreachableError, "Protocol"),
    "endless-header": Fault(floods(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 999), BackendUnreachableError, "Protocol"),
    "endless-hints": Fault(
        floods(b"", head("103 Early Hints", Link="</a>") * 9), BackendUnreachableError, "ReadTimeout", endless=True
    ),
    "endless-padding": Fault(
        floods(_CHUNKED, b"1;" + b"x" * 9_999 + b"\r\n \r\n"), BackendUnreachableError, "ReadTimeout", endless=True
    ),
    "endless-body": Fault(floods(head(Content_Type=_JSON), b" " * 9_999), AnswerTooLargeError, "MAX_RESPONSE_BYTES"),
    "endless-chunks": Fault(
        floods(_CHUNKED, b"3e8\r\n" + b" " * 1000 + b"\r\n"), AnswerTooLargeError, "MAX_RESPONSE_BYTES"
    ),
    "length-beyond-the-bound": Fault(sends(_with_length(str(LARGEST + 1))), AnswerTooLargeError, str(LARGEST)),
    "length-of-an-exabyte": Fault(sends(_with_length("9" * 18)), AnswerTooLargeError, str(LARGEST)),
    "one-byte-beyond-the-bound": Fault(
        sends(head(Content_Type=_JSON), b" " * (LARGEST + 1)), AnswerTooLargeError, str(LARGEST)
    ),
    "error-beyond-the-bound": Fault(floods(head("500 Oops"), b"<p>" * 9_999), AnswerTooLargeError, str(LARGEST)),
    "length-of-5000-digits": Fault(sends(_with_length("9" * 5000)), BackendUnreachableError, "Protocol"),
    "length-that-is-none": Fault(sends(_with_length("-1")), BackendUnreachableError, "Protocol"),
    "two-lengths": Fault(sends(_with_length("2\r\nContent-Length: 3")), BackendUnreachableError, "Protocol"),
    "truncated-body": Fault(sends(_with_length("999")), BackendUnreachableError, "Protocol"),
    "truncated-chunks": Fault(sends(_CHUNKED, b"5\r\nab"), BackendUnreachableError, "Protocol"),
    "invalid-chunks": Fault(sends(_CHUNKED, b"zz\r\n{}\r\n"), BackendUnreachableError, "Protocol"),
    "huge-chunk": Fault(sends(_CHUNKED, b"f" * 30 + b"\r\n{}"), BackendUnreachableError, "Protocol"),
    "garbage": Fault(sends(b"SPQR\r\n\r\n"), BackendUnreachableError, "Protocol"),
    "another-protocol": Fault(sends(b"SSH-2.0-OpenSSH_9.6\r\n"), BackendUnreachableError, "Protocol"),
    "http-2": Fault(sends(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64"), BackendUnreachableError, "Protocol"),
    "status-of-2-digits": Fault(sends(b"HTTP/1.1 20 OK\r\n\r\n"), BackendUnreachableError, "Protocol"),
    "status-000": Fault(sends(head("000 Nothing")), BackendUnreachableError, "Protocol"),
    "status-999": Fault(sends(head("999 Much")), BackendFailedError, "answered 999"),
    "switching-protocols": Fault(sends(head("101 Switching", Upgrade="x")), BackendUnreachableError, "Protocol"),
    "nothing": Fault(sends(head("204 No Content")), BackendFailedError, "no type"),
    "html": Fault(_flawed(b"<h1>Welcome</h1>", Content_Type="text/html"), BackendFailedError, "text/html"),
    "not-json": Fault(_flawed(b"{", Content_Type=_JSON), BackendFailedError, "not the contract's"),
    "not-utf-8": Fault(_flawed(b'"\xff"', Content_Type=_JSON), BackendFailedError, "not the contract's"),
    "deep-json": Fault(_flawed(_DEEP, Content_Type=_JSON), BackendFailedError, "not the contract's"),
    "deep-json-in-an-error": Fault(
        sends(head("500 Oops", Content_Length=str(len(_DEEP))) + _DEEP), BackendFailedError, "no reason given"
    ),
    "wrong-type": Fault(_flawed(_WRONG_TYPE, Content_Type=_JSON), BackendFailedError, "is_api"),
    "gzip-bomb": Fault(sends(gzip_bomb()), BackendFailedError, "encoding"),
    "retry-after-a-day": Fault(
        sends(answer({"detail": "busy"}, "503 Service Unavailable", Retry_After="86400")), BackendBusyError, "busy"
    ),
    "retry-after-tomorrow": Fault(_tomorrow, BackendBusyError, "busy"),
    "retry-after-for-ever": Fault(
        sends(answer({"detail": "busy"}, "429 Too Many Requests", Retry_After="9" * 400)), BackendBusyError, "busy"
    ),
    "bad-gateway": Fault(sends(head("502 Bad Gateway", Content_Length="0")), BackendUnreachableError, "answered 502"),
}


def by_name(request: Received, peer: Peer) -> None:
    """Answer with the fault that the execution's id names."""
    FAULTS[request.name].script(request, peer)
