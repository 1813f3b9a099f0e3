"""What a step is given besides its input: `ctx`."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from shared.deadline import Deadline
from shared.logging_utils import get_logger
from shared.workflows import borders
from shared.workflows.errors import BorderError, RunCancelledError, StepError, WorkflowError
from shared.workflows.shape import Shape, Step, StepState

if TYPE_CHECKING:  # who declares a workflow needs no backend
    from shared.api_client import OrganizationAPI


class Seat(Protocol):
    """Where a step runs: what its engine does for it meanwhile."""

    def output(self, step: str) -> str | None:
        """The output of a parent as JSON text; None of one that was skipped."""

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Tell those who watch."""

    def cancelled(self) -> bool:
        """Whether nobody waits for this step any more."""

    def checkpoint(self) -> None:
        """Leave the slot to others here, if it is time to: the step begins anew later, as the same attempt."""

    def client(self, organization_id: str, deadline: Deadline, /) -> "OrganizationAPI":
        """The internal API for that organization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """What a step is given besides its input.

    Attributes:
        run_id: the run.
        shape: the graph that it goes by.
        step: the step.
        attempt: which attempt this is, from 1.
        deadline: until when; `deadline.remaining` are the seconds left. What comes later is not heard.
        organization_id: the tenant's string id, if the run was started for one.
        index: which item, of a step that runs over a list.
        failures: what has failed, in `on_failure`.
    """

    run_id: str
    shape: Shape
    step: Step
    attempt: int
    deadline: Deadline
    organization_id: str | None = None
    index: int | None = None
    failures: tuple[StepError, ...] = ()
    parents: Mapping[str, StepState] = field(default_factory=dict)
    input_text: str = field(default="null", repr=False)
    gives: Callable[[Step], Any] = field(default=lambda _step: Any, repr=False)
    seat: Seat = field(repr=False)

    @property
    def key(self) -> str:
        """Names this piece of work: the same for every attempt and delivery. For what must be done once."""
        item = "" if self.index is None else f"/{self.index}"
        return f"{self.run_id}/{self.step.name}{item}"

    @property
    def workflow_input(self) -> Any:
        """The input of the run, as plain JSON; steps that run over a list are given an item instead."""
        return json.loads(self.input_text)

    def task_output(self, step: str) -> Any:
        """What a parent has given: a model where one was declared, a list where it ran over one; None if skipped.

        Raises:
            BorderError: it is no parent of this step, or its output is not what is declared now.
        """
        if step not in self.step.parents:
            known = ", ".join(self.step.parents) or "none"
            raise BorderError(f"step {self.step.name} asks for the output of {step!r}; its parents are: {known}")
        text = self.seat.output(step)
        gives = self.gives(self.shape.step(step))
        return None if text is None else borders.from_text(text, gives, f"the output of {step}")

    def was_skipped(self, step: str) -> bool:
        """Whether a parent was skipped."""
        return self.parents.get(step) is StepState.SKIPPED

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far it is, to those who watch the run: numbers, and words.

        Raises:
            TypeError, ValueError: those are none.
        """
        done, total, message = float(done), None if total is None else float(total), str(message)
        if not math.isfinite(done + (total or 0)):
            raise ValueError(f"progress is told in numbers, and {done:g} of {total} is none")
        if not self.deadline.over:
            self.seat.progress(done, total, message)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this step any more: the run has ended without it, or its time is over."""
        return self.deadline.over or self.seat.cancelled()

    def checkpoint(self) -> None:
        """A place at which this step may be left and begun anew, as the same attempt: call it where it waits for long.

        No task holds a slot for long: on the fleet, what has waited for its slice goes back to the tail of its queue
        here. So everything before it must be harmless to do again (`key`).

        Raises:
            RunCancelledError: nobody waits for it any more.
            DeadlineExceededError: its time is over.
        """
        if self.seat.cancelled():
            raise RunCancelledError(f"run {self.run_id} was cancelled")
        self.deadline.check()
        self.seat.checkpoint()

    @property
    def client(self) -> "OrganizationAPI":
        """The internal API of the backend, for the tenant of the run, until this step's deadline.

        Raises:
            WorkflowError: the run was started for no tenant.
        """
        if self.organization_id is None:
            raise WorkflowError("ctx.client needs a tenant: start the run with organization_id")
        return self.seat.client(self.organization_id, self.deadline)

    @property
    def logger(self) -> Any:
        """A log whose lines say which run, workflow and step they are of."""
        return get_logger(f"workflow.{self.shape.name}")
