"""The last errors of the fleet, for who looks at it now. Not a record: that is the log."""

import json
import time
from typing import Any

import redis

from shared.state_errors import translated

_KEY = "workers:errors"
_MOST, _LONGEST = 50, 300
_KEPT_SECONDS = 3_600


class RecentErrors:
    """Fifty, until none came for an hour. Thread-safe. Methods raise StateStoreError where Redis cannot be asked."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def note(self, **error: Any) -> None:
        """Keep one more."""
        said = {name: str(value)[:_LONGEST] for name, value in error.items() if value}
        with translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(_KEY, json.dumps({"at": round(time.time(), 1), **said}))
            pipe.ltrim(_KEY, 0, _MOST - 1)
            pipe.expire(_KEY, _KEPT_SECONDS)
            pipe.execute()

    def last(self, count: int) -> list[dict[str, Any]]:
        """The last of them, the latest first: `at`, in seconds since 1970, `task`, `queue`, `execution_id`, `error`."""
        with translated():
            found: list[str] = self._redis.lrange(_KEY, 0, count - 1)  # type: ignore[assignment]
        return [json.loads(one) for one in found]
