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
from tests.acceptance.test_executions import counts

# Seldom enough that what comes while a worker is away is done soon after.
_PAUSE_SECONDS = 1.0
_LONGEST_SECONDS = 90


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

    def all_complete(self, tool_runs: int = 1) -> None:
        """Wait for every one: its files have their results, and no tool ran more often than that for any of them."""
        assert self._failed == []
        assert self.runs
        until = time.monotonic() + _LONGEST_SECONDS
        for run in self.runs:
            for _ in self._driver.watch(run, max(until - time.monotonic(), 1)):
                pass
            assert counts(run) == ("COMPLETED", len(self._documents), len(self._documents), 0)
            results = self._driver.results(self._deployment, run)
            texts = {name: item["result"]["text"].strip() for name, item in results.items()}
            assert texts == {name: path.read_text() for name, path in self._documents.items()}
        assert self._driver.control("GET", "stats")["tool_runs"]["max"] <= tool_runs

    def at_work(self) -> list[Run]:
        """Those that have not ended."""
        for run in self.runs:
            run.see(self._driver.control("GET", f"executions/{run.execution_id}/"))
        return [run for run in self.runs if not run.ended]
