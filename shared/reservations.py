"""Which execution has which file of a source: two runs of a pipeline that overlap must not both take it.

One hash per workflow: a file, by its source's id of it and its path, to its holder and when that ends. Beside the
backend's own check for active files, which sees a file only once its row is PENDING.
"""

import time
from collections.abc import Sequence
from typing import Any

import redis

from shared.state_errors import translated

_WORKFLOWS = "workers:reservations"

# KEYS: the workflow's hash, the set of workflows. ARGV: workflow, execution, now, until, files. Answers who holds the
# others: files and executions in turn.
_RESERVE = """
local held = {}
for at = 5, #ARGV do
  local value = redis.call('HGET', KEYS[1], ARGV[at])
  local holder, till
  if value then holder, till = string.match(value, '^(%S+) (%S+)$') end
  if holder and holder ~= ARGV[2] and tonumber(till) > tonumber(ARGV[3]) then
    held[#held + 1] = ARGV[at]
    held[#held + 1] = holder
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[2] .. ' ' .. ARGV[4])
    redis.call('SADD', KEYS[2], ARGV[1])
  end
end
return held
"""
# ARGV: workflow, and the execution that gives its files back, or none; then now: what has expired, and what belongs to
# executions that are not known any more, goes too.
_RELEASE = """
local values, gone = redis.call('HGETALL', KEYS[1]), 0
for at = 1, #values, 2 do
  local holder, till = string.match(values[at + 1], '^(%S+) (%S+)$')
  local over = tonumber(till) <= tonumber(ARGV[3])
  if holder == ARGV[2] or over or redis.call('EXISTS', 'workers:execution:' .. holder .. ':run') == 0 then
    gone = gone + redis.call('HDEL', KEYS[1], values[at])
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[1]) end
if gone > 0 then
  redis.call('INCR', KEYS[3])
  redis.call('EXPIRE', KEYS[3], 3600)
end
return gone
"""
_AT_ONCE = 4_000  # Lua takes some thousand values at a time


class Reservations:
    """The files that executions hold. Thread-safe. Every method raises StateStoreError where Redis cannot be asked."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._reserve, self._release = client.register_script(_RESERVE), client.register_script(_RELEASE)

    def reserve(self, workflow_id: str, execution_id: str, files: Sequence[str], seconds: float) -> dict[str, str]:
        """Reserve files for an execution that is known, for so long at most. Again, for itself, it is the same.

        Returns: those that another execution holds, and which one.
        """
        now, held = time.time(), []
        for at in range(0, len(files), _AT_ONCE):
            arguments = [workflow_id, execution_id, now, now + seconds, *files[at : at + _AT_ONCE]]
            held += self._run(self._reserve, workflow_id, arguments)
        return dict(zip(held[::2], held[1::2], strict=True))

    def releases(self, workflow_id: str) -> str | None:
        """What changes whenever files of a workflow become free: an older listing may have files that are done."""
        with translated():
            found: str | None = self._redis.get(f"{_WORKFLOWS}:{workflow_id}:released")  # type: ignore[assignment]
        return found

    def release(self, workflow_id: str, execution_id: str) -> int:
        """Give back what an execution holds. Returns how many files became free."""
        return int(self._run(self._release, workflow_id, [workflow_id, execution_id, time.time()]))

    def release_expired(self) -> int:
        """Give back what nobody may hold any more, of every workflow. Returns how many files became free."""
        with translated():
            workflows: set[str] = self._redis.smembers(_WORKFLOWS)  # type: ignore[assignment]
        return sum(self.release(workflow, "-") for workflow in workflows)

    def _run(self, script: Any, workflow_id: str, arguments: Sequence[Any]) -> Any:
        with translated():
            keys = [f"{_WORKFLOWS}:{workflow_id}", _WORKFLOWS, f"{_WORKFLOWS}:{workflow_id}:released"]
            return script(keys=keys, args=arguments)
