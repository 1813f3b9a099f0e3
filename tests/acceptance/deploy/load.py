"""Executions that keep coming while something is done to those who run them; none may be lost."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from sandbox.driver import Deployment, Driver, Run
from sandbox.stack import StackError
from tests.acceptance.test_executions import everything_completed

_PAUSE_SECONDS = 0.5


class Load:
    """Posts the same documents again and again, as long as this block."""

    def __init__(self, driver: Driver, deployment: Deployment, documents: Mapping[str, Path]) -> None:
        self.runs: list[Run] = []
        self._driver, self._deployment, self._documents = driver, deployment, documents
        self._over = threading.Event()
        self._failed: list[Exception] = []
        self._thread = threading.Thread(target=self._post, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _post(self) -> None:
        try:
            while not self._over.wait(_PAUSE_SECONDS):
                self.runs.append(self._driver.post(self._deployment, self._documents))
        except (httpx.HTTPError, StackError) as error:
            self._failed.append(error)

    def all_complete(self, seconds: float = 90) -> None:
        """Wait for every one: each was taken, each of its files was processed once, and its results are there."""
        assert self._failed == []
        assert self.runs
        until = time.monotonic() + seconds
        for run in self.runs:
            for _ in self._driver.watch(run, max(until - time.monotonic(), 1)):
                pass
            everything_completed(self._driver, self._deployment, run, self._documents)

    def at_work(self) -> list[Run]:
        """Those that have not ended."""
        for run in self.runs:
            run.see(self._driver.control("GET", f"executions/{run.execution_id}/"))
        return [run for run in self.runs if not run.ended]
