"""Faults that can be switched on while the backend runs: `GET/PUT /sandbox/switches`."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Switches:
    """All off by default. The rates are shares of the requests under `/internal/`, between 0 and 1.

    `rate_reset` closes the connection before the request is handled, `rate_reset_after` once its effects are
    committed. `error_500_seconds` makes paths that contain `error_500_path` answer 500 for that long.
    `late_commit_seconds` keeps the transaction that makes an execution open for that long after its message was sent.
    `without_buffer` makes this a backend that has no notification buffer.
    `hold_request` keeps requests whose method and path end so from being handled, `hold_answer` from being answered,
    as long as they are set: who waits for such a request can be killed at that point.
    `seed` restarts the random numbers, so that a run can be repeated.
    """

    latency_seconds: float = 0.0
    rate_503: float = 0.0
    rate_reset: float = 0.0
    rate_reset_after: float = 0.0
    rate_slow: float = 0.0
    slow_seconds: float = 1.0
    error_500_seconds: float = 0.0
    error_500_path: str = "update_status"
    late_commit_seconds: float = 0.0
    without_buffer: bool = False
    hold_request: str = ""
    hold_answer: str = ""
    tool: str = "extract"
    tool_seconds: float = 0.0
    seed: int | None = None


class SwitchBoard:
    """The current switches and their random numbers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._random = random.Random()  # noqa: S311 (chooses which requests fail, nothing secret)
        self._error_until = 0.0
        self.current = Switches()

    def change(self, values: dict[str, Any]) -> Switches:
        """Set what `values` names, leave the rest; `reset` clears all first. ValueError names what is wrong."""
        values = dict(values)
        base = Switches() if values.pop("reset", False) else self.current
        _check(values)
        with self._lock:
            self.current = replace(base, **values)
            if values.get("seed") is not None:
                self._random.seed(values["seed"])
            self._error_until = time.monotonic() + self.current.error_500_seconds
        return self.current

    def happens(self, rate: float) -> bool:
        """Whether a fault of this rate hits the present request."""
        if rate <= 0:
            return False
        with self._lock:
            return self._random.random() < rate

    def failing(self, path: str) -> bool:
        """Whether `path` is one that answers 500 just now."""
        return time.monotonic() < self._error_until and self.current.error_500_path in path

    def snapshot(self) -> dict[str, Any]:
        return asdict(self.current)


def _check(values: dict[str, Any]) -> None:
    known = {item.name: item.default for item in fields(Switches)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown switches: {', '.join(unknown)}; known are {', '.join(known)}")
    for name, value in values.items():
        _check_one(name, value, known[name])
    if values.get("tool", "extract") not in {"extract", "echo"}:
        raise ValueError("tool must be extract or echo")


def _check_one(name: str, value: Any, default: Any) -> None:
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false")  # noqa: TRY004 # as for every other mistake here
    if isinstance(default, float):
        _check_number(name, value)
    elif name == "seed" and not (value is None or isinstance(value, int)):
        raise ValueError("seed must be a whole number or null")
    elif isinstance(default, str) and not isinstance(value, str):
        raise ValueError(f"{name} must be a string")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{name} must be a number that is not negative")
    if name.startswith("rate_") and value > 1:
        raise ValueError(f"{name} is a share, at most 1")


switchboard = SwitchBoard()
