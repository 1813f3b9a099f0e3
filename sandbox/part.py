"""One process of a stack: where it writes, and how it was started."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack.

    Attributes:
        pid: also the id of its process group.
        log: what it writes, and those of its name before it wrote.
        log_start: where in its log it began, in bytes.
        order: how the keeper was told to start it.
    """

    name: str
    pid: int
    log: Path
    log_start: int
    order: Mapping[str, Any]

    def said(self) -> str:
        """What this process has written, without those before it."""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def tail(self, lines: int = 15) -> str:
        """The last lines it wrote."""
        return "\n".join(self.said().splitlines()[-lines:])
