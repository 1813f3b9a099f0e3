"""Runs of workflows on the fleet: what follows when a step has ended. Used where runs are started, in the delivery of
every step, and by the sweeper.

Whoever records an end goes on with what waits for it, and all that is harmless to do again: a delivery that died in the
middle is delivered again, finds the end recorded, and goes on from there. Who meets at a join is told by the barrier
that batches meet at (`shared/state_scripts.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from monitoring.prometheus_metrics import WORKFLOW_RUN_SECONDS, WORKFLOW_RUNS, WORKFLOW_STEPS
from shared.api_client import OrganizationAPI
from shared.deadline import Deadline
from shared.errors import TransientError
from shared.logging_utils import get_logger
from shared.task import tried
from shared.workflows.attempts import Limits, decide, joined, wait_after
from shared.workflows.catalogue import Catalogue
from shared.workflows.context import Seat, TaskContext
from shared.workflows.declaration import Declaration
from shared.workflows.errors import BorderError, WorkflowError
from shared.workflows.run_store import RunStore
from shared.workflows.runs import Place, Run
from shared.workflows.shape import ENDED, ON_FAILURE, RunStatus, Shape, Step, StepState

log = get_logger(__name__)

_END = ""  # the gate at which a run ends
_LAST = f"{ON_FAILURE}/"  # and the one behind that


class Send(Protocol):
    """Sends the message of a piece of work, to be taken after so many seconds.

    Raises BrokerError where the broker does not take it.
    """

    def __call__(self, run: Run, place: Place, seconds: float, /) -> None: ...


class NotKnownHereError(TransientError):
    """This process does not know a workflow, or a step of it, of which another does: versions differ for a while."""


@dataclass(frozen=True, slots=True)
class _Outside:
    """What a condition is asked with, and nothing runs in."""

    store: RunStore
    run_id: str

    def output(self, step: str) -> str | None:
        return self.store.output(self.run_id, step)

    def progress(self, done: float, total: float | None, message: str) -> None:
        """There is none."""

    def cancelled(self) -> bool:
        return self.store.ended(self.run_id)

    def checkpoint(self) -> None:
        """Nothing waits here."""

    def client(self, _organization_id: str, _deadline: Deadline, /) -> OrganizationAPI:
        raise WorkflowError("a condition (when=) is asked by whoever comes by, and has no ctx.client; ask in a step")


@dataclass(frozen=True, slots=True)
class Fleet:
    """All runs, as one process sees them.

    Attributes:
        store: where they are.
        workflows: those that are known here.
        limits: what may cross a border.
        send: how messages are sent.
        patient: whether what is not known here may be known elsewhere: versions differ while a fleet is updated.
    """

    store: RunStore
    workflows: Catalogue
    limits: Limits
    send: Send
    patient: bool = True

    def known(self, workflow: str, step: str | None = None) -> Declaration:
        """The workflow, with that step.

        Raises:
            NotKnownHereError: it is not known here, and may be elsewhere.
            WorkflowError: it is known nowhere, as far as can be said by now.
        """
        found, unknown = tried(lambda: self.workflows.named(workflow))
        if found is not None and (step is None or step in found.methods):
            return found
        said = unknown or f"workflow {workflow} has no step {step} here; another version of it has"
        if self.patient:
            raise NotKnownHereError(str(said))
        raise WorkflowError(f"{said}; have WORKFLOW_MODULES of all workers name its module")

    def begin(self, run: Run) -> None:
        """Send the first steps."""
        for step in run.shape.roots:
            self.advance(run, step, {})

    def advance(self, run: Run, step: Step, parents: Mapping[str, StepState]) -> None:
        """A step whose parents have ended so: send it, or end it unrun.

        Raises:
            TransientError: something it stands on is away, or the step is not known here.
        """
        verdict = run.shape.verdict(step, parents)
        if verdict is not StepState.QUEUED:
            self.end(run, Place(run.run_id, step.name, attempt=0), verdict)
            return
        try:
            declaration = self.known(run.shape.name, step.name)
        except WorkflowError as error:
            self.end(run, Place(run.run_id, step.name, attempt=0), StepState.FAILED, str(error))
            return
        outside = _Outside(self.store, run.run_id)
        context = self.context(run, Place(run.run_id, step.name), outside, parents)
        decision = decide(declaration, context, self.limits)
        if decision.state is not StepState.QUEUED:
            self.end(run, Place(run.run_id, step.name, attempt=0), decision.state, decision.reason)
            return
        self.queue(run, step, decision.items)

    def queue(self, run: Run, step: Step, items: Sequence[str] | None = None) -> None:
        """Send a step, or every item of it."""
        self.store.queue(run, step.name, items)
        if items is None:
            self.send(run, Place(run.run_id, step.name), 0)
            return
        for index in range(len(items)):
            self.send(run, Place(run.run_id, step.name, index), 0)
        if items:
            self.store.sent(run, step.name)
        else:
            self.fold(run, step, {})

    def end(
        self, run: Run, place: Place, state: StepState, reason: str | None = None, output: str | None = None
    ) -> bool:
        """Record an end, and go on with what waits for it. False: the attempt was given up before, or the run."""
        shape, name = run.shape, place.step
        waiting: dict[str, int | None] = {}
        if place.index is not None:
            waiting[f"{name}/"] = None
        elif name == ON_FAILURE:
            waiting[_LAST] = 1
        else:
            waiting |= {child.name: len(child.parents) for child in shape.children(name)}
            waiting[_END] = len(shape.steps)
        written, opened = self.store.end(run, place, (state, reason, output), waiting)
        if written and place.index is None:
            WORKFLOW_STEPS.inc(workflow=shape.name, step=name, outcome=state)
            log.info("step_ended", step=name, outcome=state, reason=reason, run_id=run.run_id, workflow=shape.name)
        for gate, arrived in opened.items():
            self._open(run, shape, gate, arrived)
        return written

    def _open(self, run: Run, shape: Shape, gate: str, arrived: Mapping[str, StepState]) -> None:
        if gate == _END:
            self.conclude(run, arrived)
        elif gate == _LAST:
            self.finish(run, RunStatus.FAILED)
        elif gate.endswith("/"):
            self.fold(run, shape.step(gate[:-1]), arrived)
        else:
            self.advance(run, shape.step(gate), arrived)

    def fold(self, run: Run, step: Step, arrived: Mapping[str, StepState]) -> None:
        """A step that runs over a list ends with the last of its items; it fails as the first of those that failed."""
        place = Place(run.run_id, step.name, attempt=0)
        failed = min((int(index) for index, state in arrived.items() if state is StepState.FAILED), default=None)
        if failed is not None:
            item = self.store.items(run.run_id, step.name).get(str(failed), {})
            self.store.note(run, step.name, index=failed, attempt=item.get("attempt", 1))
            self.end(run, place, StepState.FAILED, item.get("reason"))
            return
        outputs = self.store.item_outputs(run.run_id, step.name, len(arrived))
        try:
            text = joined(step.name, outputs, self.limits)
        except BorderError as error:
            self.end(run, place, StepState.FAILED, str(error))
        else:
            self.end(run, place, StepState.SUCCEEDED, output=text)
        self.store.forget_items(run.run_id, step.name, len(arrived))

    def conclude(self, run: Run, states: Mapping[str, StepState]) -> None:
        """End a run whose steps have all ended so, or have `on_failure` do it."""
        outcome, last = run.shape.outcome(states), run.shape.on_failure
        if outcome is RunStatus.FAILED and last is not None and states.get(ON_FAILURE) not in ENDED:
            self.queue(run, last)
        elif outcome is not RunStatus.RUNNING:
            self.finish(run, outcome)

    def finish(self, run: Run, status: RunStatus, reason: str | None = None) -> bool:
        """End a run; False: it had ended."""
        seconds = self.store.finish(run, status, reason)
        if seconds is None:
            return False
        WORKFLOW_RUNS.inc(workflow=run.shape.name, status=status)
        WORKFLOW_RUN_SECONDS.observe(max(0.0, seconds), workflow=run.shape.name, status=status)
        log.info("run_ended", run_id=run.run_id, workflow=run.shape.name, status=status, reason=reason)
        return True

    def failed(self, run: Run, place: Place, reason: str, *, last: bool = False) -> bool:
        """An attempt has failed: make the next one, after a wait, or end the step. Whether there is a next one."""
        step = run.shape.step(place.step)
        if last or place.attempt > step.retries:
            self.end(run, place, StepState.FAILED, reason)
            return False
        if self.store.retry(run, place, reason):
            WORKFLOW_STEPS.inc(workflow=run.shape.name, step=step.name, outcome=StepState.RETRYING)
            log.warning("step_retried", step=step.name, item=place.index, attempt=place.attempt, reason=reason)
            again = replace(place, attempt=place.attempt + 1)
            self.send(run, again, wait_after(step, place.attempt))
        return True

    def context(
        self,
        run: Run,
        place: Place,
        seat: Seat,
        parents: Mapping[str, StepState],
        deadline: Deadline | None = None,
    ) -> TaskContext:
        """What a step is given there."""
        step = run.shape.step(place.step)
        return TaskContext(
            run_id=run.run_id,
            shape=run.shape,
            step=step,
            attempt=place.attempt,
            deadline=deadline or Deadline.after(step.timeout, f"step {step.name}"),
            organization_id=run.organization_id,
            index=place.index,
            failures=self.store.view(run.run_id).failures() if step.name == ON_FAILURE else (),
            parents=parents,
            input_text=run.input_text,
            gives=self.known(run.shape.name).gives,
            seat=seat,
        )
