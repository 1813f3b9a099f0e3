"""A run as those outside see it: where it and its steps are, and what changed since they last looked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shared.workflows.errors import RunCancelledError, RunFailedError, StepError
from shared.workflows.shape import ON_FAILURE, RunStatus, StepState

PROGRESS = "progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change.

    Attributes:
        id: names it within its run; later ones are behind it.
        at: when, in seconds since 1970.
        state: a `RunStatus` if it has no step, else a `StepState`, or `progress`.
        step: which step.
        index: which item of it.
        attempt: which attempt of that.
        reason: why it failed, is tried again, or was not run.
        done: how far it is.
        total: of how much.
        message: what it says.
    """

    id: str = ""
    at: float
    state: str
    step: str | None = None
    index: int | None = None
    attempt: int | None = None
    reason: str | None = None
    done: float | None = None
    total: float | None = None
    message: str | None = None

    @property
    def last(self) -> bool:
        """Whether nothing comes behind it."""
        return self.step is None and self.state != RunStatus.RUNNING

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, without what it does not say."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


@dataclass(slots=True, kw_only=True)
class StepView:
    """Where a step is.

    Attributes:
        state: its state.
        attempts: attempts that have begun, of all its items together.
        items: of how many it is, if it runs over a list.
        items_ended: how many of these have ended.
        done: how far it is, as it says itself.
        total: of how much.
        message: what it says besides.
        reason: why it failed or was not run.
        attempt: which attempt failed for good.
        index: of which item.
        began: when its first attempt began, in seconds since 1970.
        ended: when it ended.
    """

    state: StepState = StepState.WAITING
    attempts: int = 0
    items: int | None = None
    items_ended: int = 0
    done: float | None = None
    total: float | None = None
    message: str | None = None
    reason: str | None = None
    attempt: int | None = None
    index: int | None = None
    began: float | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """Where a run is.

    Attributes:
        run_id: its id.
        workflow: of which workflow.
        status: its status.
        began: when it was started, in seconds since 1970.
        ended: when it ended.
        steps: its steps by name, in the order of their declaration; `on_failure` too, once it was needed.
        reason: why it has ended so, where no step says it.
        leaves: the steps whose outputs it gives, by the graph that it was started with.
    """

    run_id: str
    workflow: str
    status: RunStatus
    began: float
    ended: float | None = None
    steps: Mapping[str, StepView] = field(default_factory=dict)
    reason: str | None = None
    leaves: tuple[str, ...]

    def failures(self) -> tuple[StepError, ...]:
        """What has failed, in the order of the declaration."""
        return tuple(
            StepError(name, step.attempt or 0, step.reason or "", step.index)
            for name, step in self.steps.items()
            if step.state is StepState.FAILED and name != ON_FAILURE
        )

    def check(self) -> None:
        """Raise what the run has come to, unless it has succeeded or still runs.

        Raises:
            RunFailedError, RunCancelledError
        """
        if self.status is RunStatus.CANCELLED:
            raise RunCancelledError(f"run {self.run_id} was cancelled{f': {self.reason}' if self.reason else ''}")
        if self.status is RunStatus.FAILED:
            first, *others = self.failures() or (StepError("", 0, self.reason or "it failed"),)
            error = RunFailedError(first.step, first.attempt, first.reason, first.index)
            error.others = tuple(others)
            raise error

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, without what is not known."""
        steps = {name: _known(asdict(step)) for name, step in self.steps.items()}
        return _known({name: getattr(self, name) for name in self.__slots__} | {"steps": steps})


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
