"""What every engine can do. Whether two do the same is what `tests/conformance` asks."""

from typing import Protocol

from shared.workflows.declaration import Declaration
from shared.workflows.views import Event, RunView


class Engine(Protocol):
    """Runs workflows. Thread-safe. Methods raise UnknownRunError for a run that is not known, or no more."""

    def start(
        self, declaration: Declaration, input_text: str, *, run_key: str | None, organization_id: str | None
    ) -> str:
        """Start a run, once for each `run_key` of a workflow and a tenant.

        Returns: its id; of the run that was started with that key before, if one was.

        Raises:
            RunKeyError: that one has another input.
            TransientError: what the engine stands on is away; nothing was started.
        """

    def look(self, run_id: str) -> RunView:
        """Where a run is."""

    def output(self, run_id: str, step: str) -> str | None:
        """What a step has given, as JSON text; None if it has given nothing."""

    def events(self, run_id: str, after: str | None, seconds: float) -> list[Event]:
        """What changed behind that event, or from the beginning. If nothing has, wait so long for the next change."""

    def cancel(self, run_id: str) -> bool:
        """End a run that has not ended: no further step of it begins. Whether it was this that ended it."""

    def close(self) -> None:
        """Let go of what it holds."""
