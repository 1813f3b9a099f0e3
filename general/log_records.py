"""The list of log records that wait for the backend, in its Redis (`CACHE_REDIS_*`, contract section 4).

Beside it, the last lines of each execution, for `workers logs`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import redis

from shared.claims import TOMBSTONE_SECONDS
from shared.execution_log import MOST_LINES
from shared.state_errors import translated
from shared.state_store import key_of

_PREFIX = "workers:log:"
_LONGEST_ID = 200

# The record and the claim on it are one step: no crash can part them, and no redelivery repeats it. The execution's own
# lines are of the same step. They go with its other state, or as long after its end as that is remembered.
# KEYS: claim, list, lines, ended. ARGV: expiry of the claim, record, line, most lines, expiry while it runs, and after.
_RECORD = """
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[4], '*', 'line', ARGV[3])
redis.call('EXPIRE', KEYS[3], redis.call('EXISTS', KEYS[4]) == 1 and ARGV[6] or ARGV[5])
return 1
"""


class LogRecords:
    """Records of logs on their way to the backend's database. Thread-safe.

    Args:
        client: the Redis that the backend reads.
        queue: the list in it.
        remembered: seconds for which a record is known to be there: longer than a broker may take to deliver its
            message again. One key each, and there are many, so not for ever.
        kept: seconds for which the lines of an execution that has not ended are kept since the last of them.
    """

    def __init__(self, client: redis.Redis, queue: str, remembered: int, kept: int) -> None:
        self._redis, self._queue = client, queue
        self._remembered, self._kept = remembered, kept
        self._record: Callable[..., Any] = client.register_script(_RECORD)

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()

    def append(self, task_id: str, record: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
        """Append a record of an execution, and keep its line, once for each task.

        Returns: whether this call did.

        Raises:
            StateStoreError: Redis cannot be asked.
        """
        execution_id = str(record["execution_id"])[:_LONGEST_ID]
        lines, ended = key_of(execution_id, "log"), key_of(execution_id, "ended")
        values = [self._remembered, json.dumps(record), json.dumps(line), MOST_LINES, self._kept, TOMBSTONE_SECONDS]
        with translated():
            return bool(self._record(keys=[f"{_PREFIX}{task_id}", self._queue, lines, ended], args=values))
