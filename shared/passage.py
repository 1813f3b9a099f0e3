"""What goes with a request of a user through every worker and into the backend: its id, and the trace it belongs to.

Whoever sends a message may say so in its headers, and whoever sends is not trusted: what could not be the value of an
HTTP header is left out, or replaced.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

REQUEST_ID = "request_id"
_HTTP_REQUEST_ID = "X-Request-ID"
_PARENT, _STATE = "traceparent", "tracestate"
_LONGEST_ID = 128
_LONGEST_STATE = 512  # all that the standard has everybody pass on
# https://www.w3.org/TR/trace-context/#traceparent-header: later versions may have more behind a dash, ff is none.
_IDS = "(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(f"00-{_IDS}|(?!00|ff)[0-9a-f]{{2}}-{_IDS}(?:-[!-~]{{0,200}})?")


@dataclass(frozen=True, slots=True)
class Passage:
    """One request of a user on its way.

    Attributes:
        request_id: by which it can be followed.
        traceparent: of the W3C's Trace Context, if the message came with a valid one.
        tracestate: what belongs to that.
    """

    request_id: str
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def trace(self) -> dict[str, str]:
        """The headers that say which trace it is."""
        found = {_PARENT: self.traceparent, _STATE: self.tracestate}
        return {name: value for name, value in found.items() if value is not None}


_current: ContextVar[Passage | None] = ContextVar("passage", default=None)


def current() -> Passage | None:
    """What this thread is doing something for, if it is a request."""
    return _current.get()


def trace_id() -> str | None:
    """The id of the trace that this thread carries, 32 hexadecimal digits; None if it carries none."""
    passage = _current.get()
    return passage.traceparent.split("-")[1] if passage and passage.traceparent else None


def message_headers() -> dict[str, str]:
    """What the headers of a message say that this thread sends."""
    passage = _current.get()
    return {REQUEST_ID: passage.request_id, **passage.trace} if passage else {}


def http_headers() -> dict[str, str]:
    """What the headers of a request to the backend say besides."""
    passage = _current.get()
    return {_HTTP_REQUEST_ID: passage.request_id, **passage.trace} if passage else {}


@contextmanager
def carrying(passage: Passage) -> Iterator[None]:
    """Have what this thread sends go on with that."""
    token = _current.set(passage)
    try:
        yield
    finally:
        _current.reset(token)


def passage_of(headers: Mapping[str, Any] | None, *ids: Any) -> Passage:
    """Whose request a message is: as its sender wrote, or else by the first of its own ids that can be used."""
    said = headers or {}
    usable = (value for value in (said.get(REQUEST_ID), *ids) if _is_header(value, _LONGEST_ID))
    request_id = next(usable, None) or uuid4().hex
    parent, state = said.get(_PARENT), said.get(_STATE)
    if not (isinstance(parent, str) and _TRACEPARENT.fullmatch(parent)):
        return Passage(request_id)
    return Passage(request_id, parent, state if _is_header(state, _LONGEST_STATE) else None)


def _is_header(value: Any, longest: int) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= longest
        and value == value.strip()
        and value.isascii()
        and value.isprintable()
    )
