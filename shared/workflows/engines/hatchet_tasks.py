"""The steps of workflows as tasks of Hatchet's: `shared/workflows/engines/hatchet.py` says what they are registered
with."""

import asyncio
import itertools
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from shared.api_client import InternalAPIClient, OrganizationAPI
from shared.deadline import Deadline
from shared.retry_utils import jittered
from shared.task import tried
from shared.variables import SettingsError
from shared.workflows.attempts import (
    LONGEST_WAIT,
    Decision,
    Limits,
    carry_out,
    decide,
    final,
    joined,
    passing,
    reason_of,
    wait_after,
)
from shared.workflows.context import TaskContext
from shared.workflows.declaration import Declaration
from shared.workflows.engines.shelf import INLINE, Envelope, Shelf
from shared.workflows.errors import StepError, WorkflowError
from shared.workflows.shape import ON_FAILURE, Shape, Step, StepState

try:
    import hatchet_sdk as sdk
    from hatchet_sdk.runnables.workflow import Standalone
except ModuleNotFoundError as missing:
    group = "is not installed here: it is of the dependency group hatchet (uv sync --group hatchet)"
    raise SettingsError(f"TASK_QUEUE_BACKEND is hatchet, and {missing.name} {group}") from missing

T = TypeVar("T")

ITEMS_AT_ONCE = 100
# Hatchet's messages have 4 MiB at most. An attempt is told the input and its parents' outputs, a retry all outputs of
# the run; and the items of a list are started together, each with the input.
_TOGETHER = 7 * INLINE
INLINE_ITEM = _TOGETHER // (2 * ITEMS_AT_ONCE)
_SAID = re.compile(r"(?:item (\d+), )?attempt (\d+): (.*)", re.DOTALL)


class Given(BaseModel):
    """What each task of a run is told.

    Attributes:
        input: of the run, in an envelope.
        until: when the run's time is over, in seconds since 1970.
        key: names the run for Hatchet, which starts it once.
        organization_id: the tenant's string id.
        run_id: the run that an item belongs to, for its own is another.
        index: which item.
        item: itself, in an envelope.
        parents: where the parents of its step are.
    """

    input: dict[str, Any]
    until: float
    key: str = ""
    organization_id: str | None = None
    run_id: str = ""
    index: int | None = None
    item: dict[str, Any] = {}
    parents: dict[str, StepState] = {}


class Host(Protocol):
    """What a task needs of its engine."""

    limits: Limits
    shelf: Shelf

    @property
    def client(self) -> InternalAPIClient:
        """The client of the internal API."""

    def output(self, run_id: str, step: str) -> str | None:
        """What a step has given."""

    async def spawn(self, child: Standalone[Given, dict[str, Any]], items: Sequence[Given]) -> list[Any]:
        """Run a task for each item. What each has given, or why it failed, in their order."""


@dataclass(slots=True)
class Place:
    """A step of a workflow, as a task of Hatchet's."""

    engine: Host
    declaration: Declaration
    step: Step
    parents: Sequence[sdk.Task[Given, Any]] = ()
    child: Standalone[Given, dict[str, Any]] | None = None

    def run(self, given: Given, ctx: sdk.Context) -> dict[str, Any]:
        """A step, or an item of one."""
        return self._told(given, ctx, self._carried)

    async def run_each(self, given: Given, ctx: sdk.DurableContext) -> dict[str, Any]:
        """A step that runs over a list. It waits in a slot of another kind than its items need."""
        state, items = await asyncio.to_thread(self._told, given, ctx, self._listed)
        if state is not StepState.QUEUED or self.child is None:
            return {"state": state}
        ends: list[Any] = []
        for begin in range(0, len(items), ITEMS_AT_ONCE):
            ends += await self.engine.spawn(self.child, items[begin : begin + ITEMS_AT_ONCE])
        for index, end in enumerate(ends):
            if isinstance(end, BaseException) or "state" not in end:
                _, attempt, reason = understood(str(getattr(end, "exceptions", [end])[0] or "cancelled"), self.step)
                raise sdk.NonRetryableException(f"item {index}, attempt {attempt}: {reason}")
        return await asyncio.to_thread(self._told, given, ctx, partial(self._joined, ends))

    def _told(self, given: Given, ctx: sdk.Context, work: Callable[[Given, sdk.Context, Deadline], T]) -> T:
        """What that gives, or its failure as Hatchet understands it. What passes is waited for, as the same attempt."""
        left = math.inf if self.step.name == ON_FAILURE else max(0.0, given.until - time.time())
        deadline = Deadline.after(min(self.step.timeout, left), f"step {self.step.name}")
        for tries in itertools.count(1):
            found, error = tried(lambda: work(given, ctx, deadline))
            if error is None or not passing(error) or ctx.is_cancelled:
                break
            time.sleep(deadline.cut(jittered(1.0, tries, LONGEST_WAIT)))
            if deadline.over:
                break
        if error is None:
            return found  # type: ignore[return-value] # there is no error
        said = f"attempt {ctx.attempt_number}: {reason_of(error)}"
        if final(error):
            raise sdk.NonRetryableException(said) from None
        raise sdk.RetryAfterException(
            said, after=timedelta(seconds=wait_after(self.step, ctx.attempt_number))
        ) from None

    def _carried(self, given: Given, ctx: sdk.Context, deadline: Deadline) -> dict[str, Any]:
        context, decision = self._decided(given, ctx, deadline)
        if decision.state is not StepState.QUEUED:
            return {"state": decision.state}
        text = context.input_text if given.index is None else self.engine.shelf.get(given.item)
        output = carry_out(self.declaration, context, text or "null", self.engine.limits)
        deadline.check()
        return self._kept(given, context.attempt, context.run_id, output)

    def _listed(self, given: Given, ctx: sdk.Context, deadline: Deadline) -> tuple[StepState, list[Given]]:
        context, decision = self._decided(given, ctx, deadline)
        key = f"workers:workflow:{context.run_id}:item:{self.step.name}"
        put = partial(self.engine.shelf.put, until=given.until, most=INLINE_ITEM)
        of_run = given.model_copy(update={"key": "", "run_id": context.run_id, "parents": dict(context.parents)})
        return decision.state, [
            of_run.model_copy(update={"index": index, "item": put(f"{key}:{index}", text)})
            for index, text in enumerate(decision.items or ())
        ]

    def _joined(self, ends: Sequence[Envelope], given: Given, ctx: sdk.Context, _deadline: Deadline) -> dict[str, Any]:
        outputs = [self.engine.shelf.get(end) or "null" for end in ends]
        text = joined(self.step.name, outputs, self.engine.limits)
        return self._kept(given, ctx.attempt_number, ctx.workflow_run_id, text)

    def _kept(self, given: Given, attempt: int, run_id: str, output: str) -> dict[str, Any]:
        item = "" if given.index is None else f":{given.index}"
        key = f"workers:workflow:{run_id}:output:{self.step.name}{item}"
        held = self.engine.shelf.put(key, output, given.until, share(self.declaration.shape))
        return {"state": StepState.SUCCEEDED, "attempt": attempt, **held}

    def _decided(self, given: Given, ctx: sdk.Context, deadline: Deadline) -> tuple[TaskContext, Decision]:
        deadline.check()
        shape, run_id = self.declaration.shape, given.run_id or ctx.workflow_run_id
        # Of an item these are none: it is not told what the parents of its step have given.
        outputs = {task.name: _parent(ctx, task) for task in self.parents}
        states = {name: StepState(outputs[task_name(name)]["state"]) for name in self.step.parents if outputs}
        context = TaskContext(
            run_id=run_id,
            shape=shape,
            step=self.step,
            attempt=ctx.attempt_number,
            deadline=deadline,
            organization_id=given.organization_id,
            index=given.index,
            failures=tuple(_failures(shape, ctx)) if self.step.name == ON_FAILURE else (),
            parents=states or given.parents,
            input_text=self.engine.shelf.get(given.input) or "null",
            gives=self.declaration.gives,
            seat=_Seat(self.engine, ctx, run_id, outputs),
        )
        if given.index is not None:
            return context, Decision(StepState.QUEUED)
        decision = decide(self.declaration, context, self.engine.limits)
        if decision.state is StepState.FAILED:
            raise WorkflowError(decision.reason)
        return context, decision


@dataclass(frozen=True, slots=True)
class _Seat:
    """A step in a worker of Hatchet's."""

    engine: Host
    ctx: sdk.Context
    run_id: str
    outputs: Mapping[str, Envelope]

    def output(self, step: str) -> str | None:
        known = self.outputs.get(task_name(step))
        return self.engine.output(self.run_id, step) if known is None else self.engine.shelf.get(known)

    def progress(self, done: float, total: float | None, message: str) -> None:
        self.ctx.log({"done": done, "total": total, "message": message})

    def cancelled(self) -> bool:
        return self.ctx.is_cancelled

    def checkpoint(self) -> None:
        """Hatchet knows no place to come back to."""

    def client(self, organization_id: str, deadline: Deadline) -> OrganizationAPI:
        return self.engine.client.for_organization(organization_id, deadline)


def task_name(step: str) -> str:
    """What Hatchet calls a step."""
    return f"{step}-on-failure" if step == ON_FAILURE else step.lower()


def share(shape: Shape) -> int:
    """How many bytes one output may have within Hatchet."""
    return min(INLINE, _TOGETHER // (len(shape.steps) + 1))


def understood(said: str, step: Step) -> tuple[int | None, int, str]:
    """Item, attempt and reason of a failure. What Hatchet itself says has none of these, and comes after the last."""
    error = sdk.TaskRunError.deserialize(said).exc
    found = _SAID.fullmatch(error)
    if found is None:
        return None, step.retries + 1, error
    return None if found[1] is None else int(found[1]), int(found[2]), found[3]


def _parent(ctx: sdk.Context, task: sdk.Task[Given, Any]) -> Envelope:
    if ctx.was_skipped(task):
        return {"state": StepState.SKIPPED}
    try:
        found: Envelope = ctx.task_output(task)
    except ValueError:  # it has given nothing
        return {"state": StepState.FAILED}
    return found


def _failures(shape: Shape, ctx: sdk.Context) -> Iterator[StepError]:
    for step in shape.steps:
        if said := ctx.task_run_errors.get(task_name(step.name)):
            index, attempt, reason = understood(said, step)
            yield StepError(step.name, attempt, reason, index)
