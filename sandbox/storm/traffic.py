"""The users of the platform during a storm: they post documents and start pipelines, whatever the weather."""

import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from sandbox.driver import Deployment, Driver, Run
from sandbox.stack import StackError

TABLE = "storm_documents"
_ORGANIZATIONS = {"storm-one": 1, "storm-four": 4, "storm-eight": 8}  # with the batches of their executions
_SIZES = (1, 1, 2, 3, 5, 8, 13, 20)
_GAP_SECONDS = 1.5  # the tools do ten files a second
_SHARE_OF_PIPELINES = 0.25
_NAME = "note-{:06d}.txt"
_NUMBER = re.compile(r"note number (\d+) of the storm")


def document_of(text: str) -> str | None:
    """The name of the document that has this text, if it is one of ours."""
    found = _NUMBER.search(text)
    return _NAME.format(int(found[1])) if found else None


class Traffic:
    """Posts from a thread of its own, so that an answer that is late holds up no blow.

    Leaving its context stops it.

    Attributes:
        sent: by execution, its number of files, for those that the backend confirmed.
        refused: how often it did not, by why.
    """

    def __init__(self, driver: Driver, folder: Path, seed: int, hook: str | None) -> None:
        self._driver = driver
        self._folder = folder
        self._random = random.Random(seed)  # noqa: S311 # it chooses documents, nothing secret
        # The receiver is the backend, which dies now and then.
        self._hooks = [{"url": hook, "max_retries": 20}] if hook else []
        self._written = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self.sent: dict[str, int] = {}
        self.refused: Counter[str] = Counter()
        self._deployments = [self._deploy(name, batches) for name, batches in _ORGANIZATIONS.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float = 70) -> None:
        """Post nothing more, and wait for the last answer.

        Raises:
            StackError: it has not come within `seconds`.
        """
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        if self._thread.is_alive():
            raise StackError(f"the backend has not answered a user within {seconds:g} s")

    def _run(self) -> None:
        while not self._over.wait(self._random.expovariate(1 / _GAP_SECONDS)):
            pipeline = self._random.random() < _SHARE_OF_PIPELINES
            self.attempt(self.start_pipeline if pipeline else self.post)
            with suppress(StackError, httpx.HTTPError):
                self.send_notifications()

    def send_notifications(self) -> None:
        """What the platform's scheduler does every now and then: have the backend send the events that are due."""
        if self._hooks:
            self._driver.internal("POST", "v1/webhook/buffer/process/", next(iter(_ORGANIZATIONS)), {})

    def attempt(self, send: Callable[[int], Run]) -> None:
        """Send some files, and remember whether the backend confirmed it."""
        files = self._random.choice(_SIZES)
        try:
            self.sent[send(files).execution_id] = files
        except StackError as error:
            self.refused[" ".join(str(error).split()[1:3]).rstrip(":")] += 1
        except httpx.HTTPError as error:
            self.refused[type(error).__name__] += 1

    def _deploy(self, organization: str, batches: int) -> Deployment:
        deployment = self._driver.deploy(organization, batches)
        if self._hooks:
            wanted = {"organization": organization, "workflow_type": "API", "name": organization}
            self._driver.control("POST", "setup/", {**wanted, "notifications": self._hooks})
        return deployment

    def post(self, files: int) -> Run:
        """New documents for one of the API deployments."""
        documents = self._documents(self._folder / "posted", files)
        return self._driver.post(self._random.choice(self._deployments), documents)

    def start_pipeline(self, files: int) -> Run:
        """A pipeline of its own for each run: its folder holds its files and no others."""
        folder = self._folder / f"source-{self._written}"
        self._documents(folder, files)
        organization = self._random.choice(list(_ORGANIZATIONS))
        wanted = {
            "organization": organization,
            "workflow_type": "ETL",
            "name": folder.name,
            "source_folder": str(folder),
            "destination_table": TABLE,
            "notifications": self._hooks,
        }
        return self._driver.start_pipeline(self._driver.control("POST", "setup/", wanted))

    def _documents(self, folder: Path, count: int) -> dict[str, Path]:
        """Good documents that are like no others, by their names."""
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for _ in range(count):
            self._written += 1
            name = _NAME.format(self._written)
            found[name] = folder / name
            found[name].write_text(f"This is note number {self._written} of the storm.\n")
        return found
