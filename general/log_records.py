"""The list of log records that wait for the backend, in its Redis (`CACHE_REDIS_*`, contract section 4)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import redis

from shared.state_errors import translated

_PREFIX = "workers:log:"

# The record and the claim on it are one step: no crash can part them, and no redelivery repeats it.
_RECORD = """
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
return 1
"""


class LogRecords:
    """Records of logs on their way to the backend's database. Thread-safe.

    Args:
        client: the Redis that the backend reads.
        queue: the list in it.
        remembered: seconds for which a record is known to be there: longer than a broker may take to deliver its
            message again. One key each, and there are many, so not for ever.
    """

    def __init__(self, client: redis.Redis, queue: str, remembered: int) -> None:
        self._redis, self._queue, self._remembered = client, queue, remembered
        self._record: Callable[..., Any] = client.register_script(_RECORD)

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()

    def append(self, task_id: str, record: Mapping[str, Any]) -> bool:
        """Append a record, once for each task.

        Returns: whether this call did.

        Raises:
            StateStoreError: Redis cannot be asked.
        """
        keys = [f"{_PREFIX}{task_id}", self._queue]
        with translated():
            return bool(self._record(keys=keys, args=[self._remembered, json.dumps(record)]))
