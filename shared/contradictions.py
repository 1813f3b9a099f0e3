"""Settings that are right each by itself and cannot be together."""

import math
import ssl
from collections.abc import Mapping
from typing import Any

_WEAK_KEYS = frozenset({"changeme", "secret", "password", "internal", "test", "dev-internal-key-123", "internal-key"})
_SHORTEST_KEY = 16


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """A line for each pair of settings that cannot both be; fields by their names, without those that are wrong."""
    found: list[str] = []
    key = values.get("backend_key")
    if key and values.get("environment") != "development":
        weak = key.reveal().lower() in _WEAK_KEYS or len(key.reveal()) < _SHORTEST_KEY
        if weak:
            found.append(
                f"INTERNAL_SERVICE_API_KEY is a well-known key or shorter than {_SHORTEST_KEY} characters: "
                "set a random one, the same as the backend's (ENVIRONMENT=development accepts any)"
            )
    for low, high, names in (
        ("backend_timeout", "batch_slice", "INTERNAL_API_TIMEOUT must be below BATCH_SLICE_SECONDS"),
        (
            "file_deadline",
            "execution_deadline",
            "FILE_DEADLINE_SECONDS must be below EXECUTION_DEADLINE_SECONDS",
        ),
    ):
        if low in values and high in values and values[low] >= values[high]:
            found.append(f"{names}: {values[low]:g} is not below {values[high]:g}")
    found += _certificates(
        values.get("backend_ca"), values.get("backend_client_cert"), values.get("backend_client_key")
    )
    found += _holding_times(values)
    return found


def _holding_times(values: Mapping[str, Any]) -> list[str]:
    """How long a message may be held, against how long the broker lets us: the table of times in ARCHITECTURE.md."""
    if "broker_url" not in values:
        return []
    redis_broker = values["broker_url"].reveal().startswith("redis")
    name, most = (
        ("BROKER_VISIBILITY_TIMEOUT", values.get("visibility", math.inf))
        if redis_broker
        else ("BROKER_CONSUMER_TIMEOUT", values.get("consumer_timeout", math.inf))
    )
    held = sum(values.get(part, 0) for part in ("batch_slice", "backend_timeout", "drain"))
    longest = {
        "BATCH_SLICE_SECONDS, INTERNAL_API_TIMEOUT and DRAIN_SECONDS together": held,
        "TASK_DEADLINE_SECONDS": values.get("task_deadline", 0),
    }
    return [
        f"{what} must be below {name}, after which a broker gives a held message to another worker: "
        f"{seconds:g} is not below {most:g}"
        for what, seconds in longest.items()
        if seconds >= most
    ]


def _certificates(authorities: str | None, certificate: str | None, key: str | None) -> list[str]:
    if key and not certificate:
        return ["INTERNAL_API_CLIENT_KEY is set without INTERNAL_API_CLIENT_CERT, the certificate it belongs to"]
    found: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if authorities:
            context.load_verify_locations(authorities)
    except ssl.SSLError as error:
        found.append(f"INTERNAL_API_CA_BUNDLE must hold certificates; {authorities} does not: {error}")
    try:
        if certificate:
            context.load_cert_chain(certificate, key, password="")  # or OpenSSL asks the terminal
    except ssl.SSLError as error:
        found.append(
            "INTERNAL_API_CLIENT_CERT and INTERNAL_API_CLIENT_KEY must belong together, the key without a passphrase; "
            f"{certificate} and {key or 'itself'} do not: {error}"
        )
    return found
