"""Redis's errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from shared.errors import StateStoreError


@contextmanager
def translated() -> Iterator[None]:
    """Any failure of Redis in this block is a StateStoreError."""
    try:
        yield
    except redis.RedisError as error:
        raise StateStoreError(f"the state store (CACHE_REDIS_*) failed: {type(error).__name__}: {error}") from error
