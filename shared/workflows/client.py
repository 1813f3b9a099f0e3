"""Starting workflows and following them, whichever engine runs them.

client = get_task_client()
outputs = await client.run_workflow("document-processing", {"document": "…"}, organization_id="org_1")
"""

import asyncio
import json
import os
import pkgutil
import time
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from shared.config import ClientSettings
from shared.workflows import catalogue
from shared.workflows.attempts import Limits
from shared.workflows.catalogue import Catalogue
from shared.workflows.engines.engine import Engine
from shared.workflows.errors import BorderError
from shared.workflows.views import Event, RunView

_LONGEST_KEY = 512
_LOOK_SECONDS = 1.0  # one question to the engine; it answers at once when something changes


class TaskClient:
    """Runs workflows by their names. Thread-safe; one for a process.

    Whatever takes a run's id raises UnknownRunError where there is no such run, or no more.

    Args:
        engine: what runs them.
        workflows: those that are known here.
        limits: what may cross a border.
    """

    def __init__(self, engine: Engine, workflows: Catalogue, limits: Limits | None = None) -> None:
        self.engine, self.workflows, self._limits = engine, workflows, limits or Limits()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start_workflow(
        self, name: str, input_data: Any = None, *, run_key: str | None = None, organization_id: str | None = None
    ) -> str:
        """Start a run, and do not wait for it.

        Args:
            name: of the workflow.
            input_data: plain JSON, or a model.
            run_key: whatever names this run outside: the same key of a workflow and a tenant starts it once.
            organization_id: the tenant's string id, for `ctx.client`.

        Returns: the id of the run.

        Raises:
            UnknownWorkflowError: there is no such workflow here.
            BorderError: the input is not as its steps have declared it, or the key is empty or longer than 512.
            RunKeyError: the key was used for another input.
            TransientError: the engine cannot be reached; nothing was started.
        """
        declaration = self.workflows.named(name)
        if run_key is not None and not 0 < len(run_key) <= _LONGEST_KEY:
            raise BorderError(f"a run_key has 1 to {_LONGEST_KEY} characters, and this has {len(run_key)}")
        text = declaration.input_text(input_data, self._limits.output)
        return self.engine.start(declaration, text, run_key=run_key, organization_id=organization_id)

    async def run_workflow(self, name: str, input_data: Any = None, *, timeout: float | None = None, **how: Any) -> Any:
        """Start a run, and wait for its end without holding up the event loop: see `run_workflow_sync`."""
        run_id = await asyncio.to_thread(self.start_workflow, name, input_data, **how)
        until = _until(timeout)
        async for event in self.follow(run_id):
            if not (event and event.last) and time.monotonic() > until:
                raise _late(run_id, timeout)
        return await asyncio.to_thread(self._given, run_id)

    def run_workflow_sync(self, name: str, input_data: Any = None, *, timeout: float | None = None, **how: Any) -> Any:
        """Start a run, and wait for its end.

        Args:
            name: as in `start_workflow`, like `input_data`, and `run_key` and `organization_id` in `how`.
            input_data: likewise.
            timeout: seconds to wait; as long as it takes by default.
            how: likewise.

        Returns: as `result` does.

        Raises: as `start_workflow` and `result` do.
        """
        return self.result(self.start_workflow(name, input_data, **how), timeout)

    def status(self, run_id: str) -> RunView:
        """Where a run is."""
        return self.engine.look(run_id)

    def result(self, run_id: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the end of a run.

        Returns: the outputs of its last steps, those that no step has as a parent, by name, as plain JSON; one that was
        skipped has none.

        Raises:
            RunFailedError: with the step, the attempt and the reason.
            RunCancelledError: it was cancelled.
            TimeoutError: it has not ended in time, and goes on.
        """
        until, after, ended = _until(timeout), None, False
        while not ended:
            found = self.engine.events(run_id, after, min(_LOOK_SECONDS, max(0.0, until - time.monotonic())))
            after, ended = (found[-1].id, found[-1].last) if found else (after, False)
            if not ended and time.monotonic() > until:
                raise _late(run_id, timeout)
        return self._given(run_id)

    def _given(self, run_id: str) -> dict[str, Any]:
        """What a run that has ended has come to: see `result`."""
        view = self.engine.look(run_id)
        view.check()
        texts = {leaf: self.engine.output(run_id, leaf) for leaf in view.leaves}
        return {name: json.loads(text) for name, text in texts.items() if text is not None}

    def cancel(self, run_id: str) -> bool:
        """End a run: nothing more of it begins; what runs is told by `ctx.cancelled`. False: it had ended before."""
        return self.engine.cancel(run_id)

    def events(self, run_id: str, after: str | None = None) -> Iterator[Event]:
        """Every change of a run, as it happens, until its end.

        Args:
            run_id: which run.
            after: the id of the last event that was seen; from the beginning by default.
        """
        while True:
            for event in self.engine.events(run_id, after, _LOOK_SECONDS):
                yield event
                after = event.id
                if event.last:
                    return

    async def follow(self, run_id: str, after: str | None = None) -> AsyncIterator[Event | None]:
        """The same, awaitable; None for a while in which nothing changed."""
        while True:
            found = await asyncio.to_thread(self.engine.events, run_id, after, _LOOK_SECONDS)
            for event in found:
                yield event
                after = event.id
                if event.last:
                    return
            if not found:
                yield None

    def close(self) -> None:
        """Let go of the engine. Runs of a local engine are cancelled, for nothing of them outlives the process."""
        self.engine.close()


def _until(seconds: float | None) -> float:
    return float("inf") if seconds is None else time.monotonic() + seconds


def _late(run_id: str, seconds: float | None) -> TimeoutError:
    return TimeoutError(f"run {run_id} has not ended within {seconds:g} s; it goes on")


def get_task_client() -> TaskClient:
    """The client of this process, as its environment has it: TASK_QUEUE_BACKEND, WORKFLOW_MODULES, and what the engine
    needs. Made when it is first asked for, and again in a child after a fork.

    Raises:
        SettingsError: a variable is missing or wrong.
        DeclarationError: a workflow cannot be declared.
    """
    return _of_process(os.getpid())


@lru_cache(maxsize=1)
def _of_process(_process: int) -> TaskClient:
    return client_of(ClientSettings.load())


def client_of(settings: ClientSettings) -> TaskClient:
    """A client of its own, for whoever closes it."""
    known = catalogue.load(settings.workflow_modules)
    limits = Limits(settings.workflow_largest, settings.workflow_items)
    # By its name: an engine's libraries are imported where it is used.
    make = pkgutil.resolve_name(f"shared.workflows.engines.{settings.engine}:make")
    return TaskClient(make(known, limits), known, limits)
