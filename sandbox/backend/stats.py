"""What the backend was asked, counted in memory: a test of the workers compares these numbers.

Effects that must happen once (tool runs, destination rows, buffered notifications, webhooks, what is shown to rooms)
are counted from the database, because they must be seen after a restart too; see `views/control.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime
from typing import Any

POLL = "GET v1/workflow-manager/execute-file/{id}/"


class Stats:
    """Thread-safe counters; `since` is the moment of the last reset, or None."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._injected: Counter[str] = Counter()
        self.since: datetime | None = None

    def request(self, label: str) -> None:
        with self._lock:
            self._requests[label] += 1

    def status(self, code: int) -> None:
        with self._lock:
            self._statuses[str(code)] += 1

    def injected(self, fault: str) -> None:
        with self._lock:
            self._injected[fault] += 1

    def reset(self, now: datetime) -> None:
        with self._lock:
            self._requests.clear()
            self._statuses.clear()
            self._injected.clear()
            self.since = now

    def snapshot(self) -> dict[str, Any]:
        """`{requests: {"GET v1/health/": n}, http_requests, polls, statuses, injected}`.

        What a switch refused or broke before it was handled is in `injected` alone.
        """
        with self._lock:
            polls = self._requests.get(POLL, 0)
            return {
                "requests": dict(sorted(self._requests.items())),
                "http_requests": sum(self._requests.values()) - polls,
                "polls": polls,
                "statuses": dict(sorted(self._statuses.items())),
                "injected": dict(sorted(self._injected.items())),
            }


stats = Stats()
