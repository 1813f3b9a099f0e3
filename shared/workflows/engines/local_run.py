"""One run in threads of this process: its own thread decides all that becomes of it, by the rules of every engine."""

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

from monitoring.prometheus_metrics import WORKFLOW_RUN_SECONDS, WORKFLOW_RUNS, WORKFLOW_STEPS
from shared.api_client import InternalAPIClient, OrganizationAPI
from shared.deadline import Deadline
from shared.logging_utils import get_logger
from shared.retry_utils import jittered
from shared.task import tried
from shared.workflows.attempts import (
    LONGEST_WAIT,
    Limits,
    carry_out,
    decide,
    final,
    joined,
    late,
    passing,
    reason_of,
    wait_after,
)
from shared.workflows.context import TaskContext
from shared.workflows.declaration import Declaration
from shared.workflows.shape import ENDED, ON_FAILURE, RunStatus, Step, StepState
from shared.workflows.views import PROGRESS, Event, RunView, StepView

log = get_logger(__name__)

_ASK_AGAIN_SECONDS = 1.0  # whether a step runs, where what its condition asks is away

Place = tuple[str, int | None]  # a step, and an item of it


class Host(Protocol):
    """What a run needs of its engine."""

    limits: Limits

    def submit(self, job: Callable[[], None], /) -> None:
        """Have a thread do that, soon."""

    def client(self) -> InternalAPIClient:
        """The client of the internal API."""


class LocalRun:
    """One run. Its own thread decides all that becomes of it; the others hand it what has happened."""

    def __init__(self, engine: Host, declaration: Declaration, input_text: str, organization_id: str | None) -> None:
        self.engine, self.declaration, self.input_text = engine, declaration, input_text
        self.organization_id = organization_id
        self.run_id, self.status, self.began = uuid4().hex, RunStatus.RUNNING, time.time()
        self.outputs: dict[str, str] = {}
        self._shape = declaration.shape
        self._steps = {step.name: StepView() for step in self._shape.steps}
        self._attempts: dict[Place, int] = {}
        self._items: dict[str, Sequence[str]] = {}
        self._item_ends: dict[str, dict[int, tuple[str | None, str | None, int]]] = {}
        self._ended: float | None = None
        self._reason: str | None = None
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    # What others ask.

    def view(self) -> RunView:
        with self._changed:
            steps = {name: replace(step) for name, step in self._steps.items()}
        if self.status is not RunStatus.RUNNING:
            for step in steps.values():
                step.state = step.state if step.state in ENDED else StepState.CANCELLED
        return RunView(
            run_id=self.run_id,
            workflow=self._shape.name,
            status=self.status,
            began=self.began,
            ended=self._ended,
            steps=steps,
            reason=self._reason,
            leaves=tuple(leaf.name for leaf in self._shape.leaves),
        )

    def events_behind(self, number: int, seconds: float) -> list[Event]:
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) > number, timeout=seconds)
            return self._events[number:]

    def cancel(self) -> bool:
        return self._finish(RunStatus.CANCELLED)

    # What its own thread does.

    def drive(self) -> None:
        """Go on until it has ended."""
        self._tell(RunStatus.RUNNING)
        self._at(self._shape.timeout, self._give_up)
        for step in self._shape.roots:
            self._advance(step)
        while self.status is RunStatus.RUNNING:
            wait = max(0.0, self._later[0][0] - time.monotonic())
            try:
                self._inbox.get(timeout=min(wait, LONGEST_WAIT))()
            except queue.Empty:
                if self._later[0][0] <= time.monotonic():
                    heapq.heappop(self._later)[2]()

    def _at(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def _advance(self, step: Step) -> None:
        if self._steps[step.name].state in ENDED:
            return  # while it waited to be decided
        context = self._context(step, None, 0, Deadline.after(step.timeout, f"step {step.name}"))
        decision, error = tried(lambda: decide(self.declaration, context, self.engine.limits))
        if decision is None:
            log.warning("decision_postponed", step=step.name, reason=reason_of(error))
            self._at(_ASK_AGAIN_SECONDS, partial(self._advance, step))
        elif decision.state is not StepState.QUEUED:
            self._end(step, decision.state, decision.reason)
        else:
            self._queue(step, decision.items)

    def _queue(self, step: Step, items: Sequence[str] | None = None) -> None:
        self._set(step.name, state=StepState.QUEUED, items=None if items is None else len(items))
        self._tell(StepState.QUEUED, step.name)
        if items is None:
            self._begin_later(step, None, 1, 0)
            return
        self._items[step.name], self._item_ends[step.name] = items, {}
        for index in range(len(items)):
            self._begin_later(step, index, 1, 0)
        if not items:
            self._fold(step)

    def _begin_later(self, step: Step, index: int | None, attempt: int, seconds: float) -> None:
        self._attempts[step.name, index] = attempt
        job = partial(self._attempt, step, index, attempt)
        if seconds:
            self._at(seconds, partial(self.engine.submit, job))
        else:
            self.engine.submit(job)

    def _attempt(self, step: Step, index: int | None, attempt: int) -> None:
        """In a thread of the engine."""
        if not self.holds((step.name, index), attempt):
            return
        deadline = Deadline.after(step.timeout, f"step {step.name}")
        context = self._context(step, index, attempt, deadline)
        self._inbox.put(partial(self._begun, step, index, attempt))
        text = self.input_text if index is None else self._items[step.name][index]
        tries = itertools.count(1)
        while True:
            output, error = tried(lambda: carry_out(self.declaration, context, text, self.engine.limits))
            if error is None or not passing(error) or deadline.over or context.cancelled:
                break
            time.sleep(deadline.cut(jittered(1.0, next(tries), LONGEST_WAIT)))
        if deadline.over:  # whose time is over is told so, and may answer before the run's own clock has struck
            output, error = None, late(step)
        self._inbox.put(partial(self._attempted, (step, index, attempt), output, error))

    def _begun(self, step: Step, index: int | None, attempt: int) -> None:
        if not self.holds((step.name, index), attempt):
            return
        view = self._steps[step.name]
        self._set(step.name, state=StepState.RUNNING, attempts=view.attempts + 1, began=view.began or time.time())
        self._tell(StepState.RUNNING, step.name, index=index, attempt=attempt)
        self._at(step.timeout, partial(self._attempted, (step, index, attempt), None, late(step)))

    def _attempted(self, what: tuple[Step, int | None, int], output: str | None, error: Exception | None) -> None:
        step, index, attempt = what
        if self._attempts.get((step.name, index)) != attempt or self.status is not RunStatus.RUNNING:
            return  # it was given up meanwhile
        if error is not None and attempt <= step.retries and not final(error):
            why = reason_of(error)
            if index is None:
                self._set(step.name, state=StepState.RETRYING)
            WORKFLOW_STEPS.inc(workflow=self._shape.name, step=step.name, outcome=StepState.RETRYING)
            self._tell(StepState.RETRYING, step.name, index=index, attempt=attempt, reason=why)
            self._begin_later(step, index, attempt + 1, wait_after(step, attempt))
            return
        self._attempts[step.name, index] = 0
        end = StepState.SUCCEEDED if error is None else StepState.FAILED
        reason = None if error is None else reason_of(error)
        if index is None:
            if output is not None:
                self.outputs[step.name] = output
            self._end(step, end, reason, attempt)
            return
        view, ends = self._steps[step.name], self._item_ends[step.name]
        ends[index] = (output, reason, attempt)
        self._set(step.name, items_ended=len(ends))
        self._tell(end, step.name, index=index, attempt=attempt, reason=reason)
        if len(ends) == view.items:
            self._fold(step)

    def _fold(self, step: Step) -> None:
        """A step that runs over a list ends with the last of its items; it fails as the first of those that failed."""
        ends = self._item_ends[step.name]
        failed = min((index for index, (output, _, _) in ends.items() if output is None), default=None)
        if failed is None:
            texts = [ends[index][0] or "" for index in sorted(ends)]
            text, error = tried(lambda: joined(step.name, texts, self.engine.limits))
            if text is None:
                self._end(step, StepState.FAILED, reason_of(error))
                return
            self.outputs[step.name] = text
            self._end(step, StepState.SUCCEEDED)
            return
        _, reason, attempt = ends[failed]
        self._set(step.name, index=failed)
        self._end(step, StepState.FAILED, reason, attempt)

    def _end(self, step: Step, state: StepState, reason: str | None = None, attempt: int | None = None) -> None:
        failed = attempt if state is StepState.FAILED else None
        self._set(step.name, state=state, reason=reason, attempt=failed, ended=time.time())
        self._tell(state, step.name, attempt=attempt, reason=reason)
        WORKFLOW_STEPS.inc(workflow=self._shape.name, step=step.name, outcome=state)
        if step.name == ON_FAILURE:
            self._finish(RunStatus.FAILED)
            return
        states = {name: view.state for name, view in self._steps.items()}
        for child in self._shape.children(step.name):
            if all(states[parent] in ENDED for parent in child.parents) and states[child.name] not in ENDED:
                self._advance(child)
        self._conclude()

    def _conclude(self) -> None:
        outcome = self._shape.outcome({name: view.state for name, view in self._steps.items()})
        last = self._shape.on_failure
        if outcome is RunStatus.RUNNING or self.status is not RunStatus.RUNNING:
            return
        if outcome is RunStatus.FAILED and last is not None:
            if ON_FAILURE not in self._steps:
                self._steps[ON_FAILURE] = StepView()
                self._queue(last)
            return
        self._finish(outcome)

    def _give_up(self) -> None:
        reason = f"the run did not end within {self._shape.timeout:g} s"
        for step in self._shape.in_order():
            if self._steps[step.name].state not in ENDED:
                self._attempts = {place: 0 if place[0] == step.name else at for place, at in self._attempts.items()}
                self._end(step, StepState.FAILED, reason)

    def _finish(self, status: RunStatus) -> bool:
        with self._changed:
            if self.status is not RunStatus.RUNNING:
                return False
            self.status, self._ended = status, time.time()
        self._tell(status)
        WORKFLOW_RUNS.inc(workflow=self._shape.name, status=status)
        WORKFLOW_RUN_SECONDS.observe(self._ended - self.began, workflow=self._shape.name, status=status)
        self._inbox.put(lambda: None)
        return True

    def _set(self, step: str, **values: Any) -> None:
        with self._changed:
            for name, value in values.items():
                setattr(self._steps[step], name, value)

    def _tell(self, state: str, step: str | None = None, **more: Any) -> None:
        with self._changed:
            if self._events and self._events[-1].last:
                return
            number = str(len(self._events) + 1)
            self._events.append(Event(id=number, at=time.time(), state=state, step=step, **more))
            self._changed.notify_all()

    def _context(self, step: Step, index: int | None, attempt: int, deadline: Deadline) -> TaskContext:
        return TaskContext(
            run_id=self.run_id,
            shape=self._shape,
            step=step,
            attempt=attempt,
            deadline=deadline,
            organization_id=self.organization_id,
            index=index,
            failures=self.view().failures() if step.name == ON_FAILURE else (),
            parents={parent: self._steps[parent].state for parent in step.parents},
            input_text=self.input_text,
            gives=self.declaration.gives,
            seat=_Seat(self, (step.name, index), attempt),
        )

    def holds(self, place: Place, attempt: int) -> bool:
        """Whether that attempt is still waited for."""
        return self.status is RunStatus.RUNNING and self._attempts.get(place) == attempt

    def progress(self, place: Place, done: float, total: float | None, message: str) -> None:
        """Keep what a step says of itself."""
        name, index = place
        if index is None:
            self._set(name, done=done, total=total, message=message or None)
        self._tell(PROGRESS, name, index=index, done=done, total=total, message=message or None)


@dataclass(frozen=True, slots=True)
class _Seat:
    """A step in a thread of the engine."""

    run: LocalRun
    place: Place
    attempt: int

    def output(self, step: str) -> str | None:
        return self.run.outputs.get(step)

    def progress(self, done: float, total: float | None, message: str) -> None:
        if not self.cancelled():
            self.run.progress(self.place, done, total, message)

    def cancelled(self) -> bool:
        return not self.run.holds(self.place, self.attempt)

    def checkpoint(self) -> None:
        """Nobody waits for this thread."""

    def client(self, organization_id: str, deadline: Deadline) -> OrganizationAPI:
        return self.run.engine.client().for_organization(organization_id, deadline)
