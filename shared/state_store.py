"""What the state of executions and of their files stands on: keys, expiries and scripts."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from shared.state_errors import translated
from shared.state_scripts import SCRIPTS

REGISTER_KEY = "workers:executions"
MARGIN_SECONDS = 3_600  # keys must outlive the deadline of what they are for
_AT_ONCE = 4_000  # Lua takes some thousand values at a time


class StateStore:
    """Keys of executions in Redis. Thread-safe. Every method raises StateStoreError where Redis cannot be asked.

    Args:
        client: the connection.
        execution_deadline: seconds an execution may take.
        stall: seconds without progress after which the reaper looks after one.
    """

    def __init__(self, client: redis.Redis, execution_deadline: float, stall: float) -> None:
        self._redis, self._deadline, self.stall = client, execution_deadline, stall
        self._expiry = int(execution_deadline) + MARGIN_SECONDS
        self._scripts = {name: client.register_script(source) for name, source in SCRIPTS.items()}

    def _put(self, execution_id: str, what: str, values: Mapping[str, str], *, once: bool = False) -> None:
        command = "HSETNX" if once else "HSET"
        pairs = flat(values)
        for at in range(0, len(pairs), _AT_ONCE):
            self._run_script("put", execution_id, ["run", what], command, *pairs[at : at + _AT_ONCE])

    def _run_script(self, script: str, execution_id: str, names: Sequence[str], *arguments: Any) -> Any:
        """Every script: the keys `ended`, the register and those of `names`, then execution, next look and expiry."""
        keys: list[str] = [key_of(execution_id, "ended"), REGISTER_KEY, *(key_of(execution_id, name) for name in names)]
        common: list[Any] = [execution_id, time.time() + self.stall, self._expiry]
        with translated():
            return self._scripts[script](keys=keys, args=[*common, *arguments])


def flat(values: Mapping[str, str]) -> list[str]:
    """Names and values in turn, as scripts take them."""
    return [part for item in values.items() for part in item]


def key_of(execution_id: str, what: str) -> str:
    """A key of an execution."""
    return f"workers:execution:{execution_id}:{what}"
