"""A webhook without I/O: its headers, the key that tells a repetition, its signature.

Whoever sends webhooks, or has them sent, builds them here: pure functions.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import PayloadError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # RFC 9110, 5.6.2
_LONGEST_VALUE = 8_192
_CONTENT_TYPE = "Content-Type"
# They say how this connection works, and which request it carries: ours to write, whatever a message says.
_OURS = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept-encoding",
        "idempotency-key",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
)
_ENCODED = "whsec_"  # how https://www.standardwebhooks.com marks a key that is written in base64


def authorized(kind: str, key: str | None = None, header: str | None = None) -> dict[str, str]:
    """The headers of a webhook whose receiver asks for an authorization, as the backend builds them.

    Args:
        kind: NONE, BEARER, API_KEY (the key alone in `Authorization`) or CUSTOM_HEADER; any other counts as NONE.
        key: the secret; without one there is nothing to add.
        header: the name of the CUSTOM_HEADER.

    Raises:
        PayloadError: a header cannot hold them; nothing of them is in the message.
    """
    found = {_CONTENT_TYPE: "application/json"}
    if key and kind == "BEARER":
        found["Authorization"] = f"Bearer {key}"
    elif key and kind == "API_KEY":
        found["Authorization"] = key
    elif key and kind == "CUSTOM_HEADER" and header:
        found[header] = key
    return sendable(found)


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a message that go out, with a content type; those that are ours to write are left out.

    Raises:
        PayloadError: a name or a value that cannot be sent: it would break the request, or hide another in it.
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise PayloadError("a webhook's header has a name that cannot be sent")
        if len(value) > _LONGEST_VALUE or value != value.strip() or not (value.isascii() and value.isprintable()):
            # The name may be shown, the value never.
            raise PayloadError(
                f"the value of a webhook's header {name} cannot be sent: printable ASCII on one line can"
            )
        if name.lower() not in _OURS:
            found[name] = value
    return found if _CONTENT_TYPE.lower() in map(str.lower, found) else {_CONTENT_TYPE: "application/json", **found}


def events_of(payload: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The events that a payload tells of: itself, or those that the backend clubbed."""
    clubbed = payload.get("notifications")
    if isinstance(clubbed, list) and clubbed and all(isinstance(event, Mapping) for event in clubbed):
        return clubbed
    return [payload]


def keys_of(payload: Mapping[str, Any]) -> set[str]:
    """The events' own keys, if each has one: those that our callback worker gave them."""
    keys = [event.get("idempotency_key") for event in events_of(payload)]
    return {str(key) for key in keys} if all(keys) else set()


def idempotency_key(url: str, payload: Mapping[str, Any], buffer_row_ids: Sequence[str], task_id: str) -> str:
    """What tells the receiver that it has these events already: the same whenever and by whoever they are sent.

    From the events' own keys, if each has one; or from the executions that they tell of, and what; else from the rows
    they waited in; else it is the task's id, which every retry and redelivery of its message has too.
    """
    events = events_of(payload)
    executions = [(event.get("execution_id"), event.get("status")) for event in events]
    told = keys_of(payload) or set(buffer_row_ids)
    if not keys_of(payload) and all(execution for execution, _ in executions):
        told = {f"{execution}:{status}" for execution, status in executions}
    if not told:
        return task_id
    return hashlib.sha256("\n".join([url, *sorted(told)]).encode("utf-8", "replace")).hexdigest()


def signing_key(raw: str) -> bytes:
    """The bytes of a key: those that stand in base64 after `whsec_`, or the text as it is."""
    if raw.startswith(_ENCODED):
        return base64.b64decode(raw.removeprefix(_ENCODED))
    return raw.encode()


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers by which a receiver knows that it is us, and when we sent (in Unix seconds).

    Source: https://www.standardwebhooks.com
    """
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    code = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{code}"}
