"""Which events a webhook has been told: one may wait twice in the backend's buffer, and come in two messages then."""

import hashlib
from collections.abc import Iterable

import redis

from shared.claims import TOMBSTONE_SECONDS
from shared.state_errors import translated

_PREFIX = "workers:webhook:"


class ToldEvents:
    """Events by their keys, for an hour. Thread-safe. Methods raise StateStoreError where Redis cannot be asked."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()

    def of(self, url: str, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose events that address has been told."""
        wanted = list(keys)
        if not wanted:
            return set()
        with translated():
            found = self._redis.mget([_name(url, key) for key in wanted])
        return {key for key, value in zip(wanted, found, strict=True) if value}

    def add(self, url: str, keys: Iterable[str]) -> None:
        """Remember that the address was told these."""
        with translated(), self._redis.pipeline() as pipe:
            for key in keys:
                pipe.set(_name(url, key), 1, ex=TOMBSTONE_SECONDS)
            pipe.execute()


def _name(url: str, key: str) -> str:
    # Not the address itself: it may be its own credential.
    return _PREFIX + hashlib.sha256(f"{url}\n{key}".encode("utf-8", "replace")).hexdigest()
