"""Where texts are kept that are too large for the messages of an engine: the state store, by reference."""

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import redis

from shared.state_errors import translated
from shared.workflows.errors import WorkflowError

# What stands for a text: {"output": it}, or {"at": where it is kept}; and whatever goes with it.
Envelope = Mapping[str, Any]

INLINE = 512 * 1024


class Shelf:
    """Where texts are kept that are too large for Hatchet: the state store, which is not asked for any other.

    Args:
        retention: seconds for which they are kept after their run's time is over.
        connect: makes the connection, once there is such a text.
    """

    def __init__(self, retention: int, connect: Callable[[], redis.Redis]) -> None:
        self.retention, self._connect = retention, connect

    @cached_property
    def _redis(self) -> redis.Redis:
        return self._connect()

    def put(self, key: str, text: str, until: float, most: int = INLINE) -> dict[str, Any]:
        """An envelope with that text, or with where it is kept, if it has more bytes than that."""
        text = text.encode(errors="backslashreplace").decode()  # halves of characters, as JSON may write them
        if len(json.dumps(text, ensure_ascii=False).encode()) <= most:
            return {"output": text}
        with translated():
            self._redis.set(key, text, ex=self.retention + math.ceil(max(0.0, until - time.time())))
        return {"at": key}

    def get(self, envelope: Envelope) -> str | None:
        """The text of an envelope; None if it has none. Raises WorkflowError if it is kept no more."""
        if "at" not in envelope:
            return envelope.get("output")
        with translated():
            text = self._redis.get(envelope["at"])
        if text is None:
            raise WorkflowError(f"{envelope['at']} is no more in the state store (WORKFLOW_RETENTION_SECONDS)")
        return str(text)
