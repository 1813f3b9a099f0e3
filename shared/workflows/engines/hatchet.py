"""Workflows on Hatchet (https://docs.hatchet.run/v1): each step is a task of its, and it keeps where runs are.

`python -m shared.workflows.engines.hatchet` is a worker with the workflows of WORKFLOW_MODULES. HATCHET_CLIENT_TOKEN
and the other HATCHET_CLIENT_ variables are read by its SDK, of the dependency group `hatchet`. What has failed is
raised, so that Hatchet's pages show it; it then cancels what depends on that, and nothing else, which is our rule.

Where Hatchet does otherwise than the other engines:

- It knows one scheme of waits, 2 s and doubled; ours are asked for with each failure (RetryAfterException, engines from
  0.111 on). After an attempt that took too long, and with older engines, the waits are Hatchet's, up to a minute.
- An attempt whose worker died uses up no retry, but `ctx.attempt` is one more; `when` is asked at each attempt.
- Times are whole seconds there: a shorter timeout is rounded up.
- A run has no timeout: with its time, that of its attempts is over, and those that begin later fail at once.
- Tasks of one run have one priority, that of its most urgent step; items of a list have their own step's.
- Names are in lower case: two that differ by that alone cannot be in one worker.
- A step that runs over a list starts a run for each item, a hundred at a time. Nothing tells of single items, and those
  that have begun when their run is cancelled go on.
- `ctx.progress` goes to Hatchet's log of the step, and no event comes of it; `ctx.checkpoint` leaves no slot.
- Events are what has changed between two looks, at the time of the look; a view has no times of steps, nor a run's end.
- A `run_key` is remembered for the run's timeout and WORKFLOW_RETENTION_SECONDS, from its start; Hatchet calls its
  idempotency beta. How long it keeps runs and outputs is a setting of its own.
- `cancel` looks first: of two at once, both may be told that it was theirs.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import ValidationError

from config.queue_routing import Priority
from shared.api_client import InternalAPIClient
from shared.config import BaseSettings, Settings, WorkflowSettings
from shared.errors import TransientError
from shared.logging_utils import configure_logging, log_crashes
from shared.redis_connection import redis_client
from shared.variables import SettingsError
from shared.workflows import catalogue
from shared.workflows.attempts import LONGEST_WAIT, Limits
from shared.workflows.catalogue import Catalogue
from shared.workflows.declaration import Declaration
from shared.workflows.errors import DeclarationError, RunKeyError, UnknownRunError
from shared.workflows.shape import ON_FAILURE, RunStatus, Shape, Step, StepState
from shared.workflows.views import Event, RunView, StepView

# First, since it says what is missing.
from shared.workflows.engines.shelf import Shelf  # isort: skip
from shared.workflows.engines.hatchet_tasks import (  # isort: skip
    INLINE_ITEM,
    Given,
    Place,
    share,
    task_name,
    understood,
)
import grpc
import hatchet_sdk as sdk
from hatchet_sdk.clients.admin import TaskRunDetail
from hatchet_sdk.clients.rest.exceptions import ApiException
from hatchet_sdk.logger import logger as sdk_logger
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone, Workflow

T = TypeVar("T")
_SLOTS = 32  # of a worker, and connections to the backend
_RUNS = {"COMPLETED": RunStatus.SUCCEEDED, "FAILED": RunStatus.FAILED, "CANCELLED": RunStatus.CANCELLED}
_STATES, _LAST = list(StepState), "!"  # an event's id is the number of each step's state, as it leaves them


def make(workflows: Catalogue, limits: Limits) -> "HatchetEngine":
    """The engine of this process. The state store's variables are read once there is something large, the backend's
    once a step asks for `ctx.client`.

    Raises:
        SettingsError: HATCHET_CLIENT_TOKEN, or another of its variables, is missing or wrong.
    """
    shelf = Shelf(WorkflowSettings.load().workflow_retention, lambda: redis_client(BaseSettings.load()))
    try:
        # Lines of our log are not sent there: they may have secrets until they are written.
        hatchet = sdk.Hatchet(config=sdk.ClientConfig(disable_log_capture=True))
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        raise SettingsError("\n".join(f"HATCHET_CLIENT_*: {one['msg']}" for one in found)) from None
    return HatchetEngine(hatchet, workflows, limits, shelf, lambda: InternalAPIClient(Settings.load(), _SLOTS))


class HatchetEngine:
    """Runs on Hatchet.

    Args:
        hatchet: its client.
        workflows: what is run.
        limits: what may cross a border.
        shelf: where large texts are kept.
        client: makes the client of the internal API, once a step asks for it.

    Attributes:
        registered: what a worker of Hatchet's registers: a workflow for each of ours, and one for the items of each
            step that runs over a list.
    """

    def __init__(
        self, hatchet: sdk.Hatchet, workflows: Catalogue, limits: Limits, shelf: Shelf, client: Callable[[], Any]
    ) -> None:
        self.hatchet, self.workflows, self.limits, self.shelf, self._client = hatchet, workflows, limits, shelf, client
        self.registered: list[BaseWorkflow[Given]] = []
        self._made = {declaration.name: self._workflow(declaration) for declaration in workflows}

    @cached_property
    def client(self) -> InternalAPIClient:
        """The client of the internal API."""
        made: InternalAPIClient = self._client()
        return made

    def start(
        self, declaration: Declaration, input_text: str, *, run_key: str | None, organization_id: str | None
    ) -> str:
        """See `Engine`."""
        shape, unique, began = declaration.shape, uuid4().hex, time.time()
        most = INLINE_ITEM if any(step.map_over for step in shape.steps) else share(shape)
        given = Given(
            input=self.shelf.put(f"workers:workflow:{unique}:input", input_text, began + shape.timeout, most),
            until=began + shape.timeout,
            key=json.dumps([shape.name, organization_id, run_key]) if run_key else unique,
            organization_id=organization_id,
        )
        digest = hashlib.sha256(input_text.encode(errors="backslashreplace")).hexdigest()
        about = {"workflow": shape.name, "input": digest, "began": began}
        begin = partial(self._made[shape.name].run, given, wait_for_result=False, additional_metadata=about)
        try:
            return str(_asked(begin))
        except sdk.IdempotencyCollisionError as before:
            run_id = before.existing_run_external_id
            known = _asked(lambda: self.hatchet.runs.get_details(run_id)).additional_metadata or {}
            if known.get("input") != digest:
                raise RunKeyError(f"run {run_id} was started with run_key {run_key!r} and another input") from before
            return run_id

    def look(self, run_id: str) -> RunView:
        """See `Engine`."""
        found = _asked(lambda: self.hatchet.runs.get_details(run_id))
        about, status = found.additional_metadata or {}, _RUNS.get(found.status.value, RunStatus.RUNNING)
        if "workflow" not in about:
            raise UnknownRunError(f"run {run_id} is none of ours")
        shape, tasks = self.workflows.named(about["workflow"]).shape, found.task_runs
        steps = {step.name: _seen(step, tasks.get(task_name(step.name)), status) for step in shape.steps}
        last = tasks.get(task_name(ON_FAILURE))
        if shape.on_failure and last and last.status != "CANCELLED" and (last.output or {}).get("state", last.error):
            steps[ON_FAILURE] = _seen(shape.on_failure, last, status)
        leaves = tuple(leaf.name for leaf in shape.leaves)
        return RunView(
            run_id=run_id, workflow=shape.name, status=status, began=about["began"], steps=steps, leaves=leaves
        )

    def output(self, run_id: str, step: str) -> str | None:
        """See `Engine`."""
        task = _asked(lambda: self.hatchet.runs.get_details(run_id)).task_runs.get(task_name(step))
        return self.shelf.get((task and task.output) or {})

    def events(self, run_id: str, after: str | None, seconds: float) -> list[Event]:
        """See `Engine`."""
        until = time.monotonic() + seconds
        while not (found := list(_changes(self.look(run_id), after))) and time.monotonic() < until:
            time.sleep(max(0.0, min(1.0, until - time.monotonic())))
        return found

    def cancel(self, run_id: str) -> bool:
        """See `Engine`."""
        running = self.look(run_id).status is RunStatus.RUNNING
        if running:
            _asked(lambda: self.hatchet.runs.cancel(run_id))
        return running

    def close(self) -> None:
        """See `Engine`. Hatchet's client has nothing to close."""

    async def spawn(self, child: Standalone[Given, dict[str, Any]], items: Sequence[Given]) -> list[Any]:
        """Run a task for each item. What each has given, or why it failed, in their order.

        They have keys: one that begins anew after a worker's death finds the runs that there are.
        """
        runs = [child.create_bulk_run_item(given, child_key=str(given.index)) for given in items]
        return list(await child.aio_run_many(runs, return_exceptions=True))

    def _workflow(self, declaration: Declaration) -> Workflow[Given]:
        shape, tasks, whole = declaration.shape, dict[str, Any](), _whole_seconds(declaration.shape.timeout)
        made = self.hatchet.workflow(
            name=shape.name,
            input_validator=Given,
            default_priority=max(_priority(step) for step in shape.steps),
            idempotency=sdk.TTLBasedIdempotencyConfig(
                key_expression="input.key", ttl=whole + timedelta(seconds=self.shelf.retention)
            ),
        )
        self.registered.append(made)
        for step in shape.in_order():
            options = _options(shape, step)
            place = Place(self, declaration, step, [tasks[parent] for parent in step.parents])
            if step.map_over is None:
                tasks[step.name] = made.task(step.name, parents=list(place.parents), **options)(place.run)
                continue
            options |= {"name": f"{shape.name}.{step.name}", "default_priority": _priority(step)}
            place.child = self.hatchet.task(input_validator=Given, **options)(Place(self, declaration, step).run)
            self.registered.append(place.child)
            of_run = partial(made.durable_task, execution_timeout=whole, schedule_timeout=whole)
            tasks[step.name] = of_run(step.name, parents=list(place.parents))(place.run_each)
        if (last := shape.on_failure) is not None:
            made.on_failure_task(ON_FAILURE, **_options(shape, last))(Place(self, declaration, last).run)
        return made


def _asked(work: Callable[[], T]) -> T:
    """What Hatchet answers; its errors as ours."""
    try:
        return work()
    except (grpc.RpcError, ApiException) as error:
        why = error.reason or error.status if isinstance(error, ApiException) else error.code().name
        if why in {"NOT_FOUND", "INVALID_ARGUMENT"}:
            raise UnknownRunError("Hatchet knows no such run, or no more") from error
        raise TransientError(f"Hatchet cannot be asked: {why}") from error


def _seen(step: Step, task: TaskRunDetail | None, run: RunStatus) -> StepView:
    if task is None and run is RunStatus.RUNNING:
        return StepView()
    if task is None or task.status == "CANCELLED":  # it is behind one that failed, or ended with its run
        return StepView(state=StepState.CANCELLED if run is RunStatus.CANCELLED else StepState.NOT_RUN)
    if task.status == "COMPLETED":
        given = task.output or {}  # of one that Hatchet has skipped itself it is nothing of ours
        return StepView(state=StepState(given.get("state", StepState.SKIPPED)), attempts=given.get("attempt", 0))
    if task.status == "FAILED":
        index, attempt, reason = understood(task.error or "", step)
        return StepView(state=StepState.FAILED, attempts=attempt, attempt=attempt, reason=reason, index=index)
    return StepView(state=StepState(task.status.lower()))


def _changes(view: RunView, after: str | None) -> Iterator[Event]:
    if after == _LAST:
        return
    if after is None:
        yield Event(id="0" * len(view.steps), at=view.began, state=RunStatus.RUNNING)
    before = dict(zip(view.steps, after or "", strict=False))
    for name, step in view.steps.items():
        state, seen = str(_STATES.index(step.state)), before.get(name, "0")
        before[name] = state
        if state != seen:
            told: dict[str, Any] = {"attempt": step.attempt, "reason": step.reason, "index": step.index}
            known = "".join(before.get(one, "0") for one in view.steps)
            yield Event(id=known, at=time.time(), state=step.state, step=name, **told)
    if view.status is not RunStatus.RUNNING:
        yield Event(id=_LAST, at=time.time(), state=view.status)


def _priority(step: Step) -> sdk.Priority:
    return sdk.Priority(len(Priority) - list(Priority).index(step.priority))


def _whole_seconds(seconds: float) -> timedelta:
    return timedelta(seconds=math.ceil(seconds))


def _options(shape: Shape, step: Step) -> dict[str, Any]:
    """How Hatchet is to run a step: `Workflow.task` says what each is."""
    times = {"execution_timeout": _whole_seconds(step.timeout), "schedule_timeout": _whole_seconds(shape.timeout)}
    if not step.retries:
        return times
    waits = {"backoff_factor": 2.0, "backoff_max_seconds": int(LONGEST_WAIT)} if step.backoff else {}
    return times | waits | {"retries": step.retries}


def main() -> None:
    """Run steps until told to stop. Where it cannot start it ends with 1, and the reason."""
    try:
        settings = Settings.load()
        workflows = catalogue.load(settings.workflow_modules)
        engine = make(workflows, Limits(settings.workflow_largest, settings.workflow_items))
    except (SettingsError, DeclarationError) as error:
        sys.exit(f"workers: hatchet cannot start:\n{error}")
    if not engine.registered:
        sys.exit("workers: hatchet cannot start:\nWORKFLOW_MODULES names no module, so there is nothing to run")
    configure_logging(settings.log_level, settings.log_format, settings.secrets())
    log_crashes()
    # Its lines are written as all others are, without secrets; but for those of its listener, a process of its own.
    sdk_logger.handlers.clear()
    sdk_logger.propagate = True
    engine.hatchet.worker("workers", slots=_SLOTS, workflows=engine.registered).start()


if __name__ == "__main__":
    main()
