"""The lines of one execution's log, as the platform's log channel carries them: kept for a while, for who asks.

The backend moves its own records into its database, where no route of the internal API reads them.
"""

import json
from collections.abc import Mapping
from typing import Any

import redis

from shared.state_errors import translated
from shared.state_store import key_of

MOST_LINES = 1_000
_LONGEST_TEXT = 2_000
_LONGEST_FIELD = 200
_FIELDS = {
    "timestamp": ("timestamp",),
    "level": ("level",),
    "stage": ("stage",),
    "component": ("component",),
    "file": ("file_name", "file", "file_execution_id"),
}
_TEXT = ("log", "message", "error")


def line_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a line: its text and what it is about, each cut; publishers write them above `data` or in it."""
    data = message.get("data")
    said = {**message, **data} if isinstance(data, Mapping) else message
    found = {field: next((said[name] for name in names if said.get(name)), None) for field, names in _FIELDS.items()}
    text = next((said[name] for name in _TEXT if said.get(name)), data)
    found["text"] = text if isinstance(text, str) else json.dumps(text, default=str)
    return {
        name: value[: _LONGEST_TEXT if name == "text" else _LONGEST_FIELD] if isinstance(value, str) else value
        for name, value in found.items()
        if isinstance(value, str | int | float)
    }


class ExecutionLog:
    """The kept lines of executions. Methods raise StateStoreError where Redis cannot be asked."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def known(self, execution_id: str) -> bool:
        """Whether anything is known of the execution here: its state, its end, or a line."""
        with translated():
            return bool(self._redis.exists(*(key_of(execution_id, what) for what in ("run", "ended", "log"))))

    def over(self, execution_id: str) -> bool:
        """Whether it has ended, or nothing is known of it any more."""
        with translated():
            ended = self._redis.exists(key_of(execution_id, "ended"))
        return bool(ended) or not self.known(execution_id)

    def after(self, execution_id: str, last: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """The lines that came behind that one, each with what names it, in the order in which they came."""
        begin = "-"
        if last is not None:
            milliseconds, number = last.split("-")
            begin = f"{milliseconds}-{int(number) + 1}"
        with translated():
            found: Any = self._redis.xrange(key_of(execution_id, "log"), min=begin)
        return [(name, json.loads(fields["line"])) for name, fields in found]
