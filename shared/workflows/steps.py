"""The task that each step of a workflow is on the fleet: one message for an attempt, done once, whoever delivers it."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from config.queue_routing import WORKFLOW_QUEUES
from shared.api_client import OrganizationAPI
from shared.call import Call, bury, note_unknown, sending
from shared.claims import Claim
from shared.deadline import Deadline
from shared.delays import send_later
from shared.errors import AlreadyDone, HandBack
from shared.logging_utils import get_logger
from shared.models import Payload, parse
from shared.redis_connection import redis_client
from shared.task import task, tried
from shared.workflows import catalogue
from shared.workflows.attempts import Limits, carry_out, final, late, passing, reason_of
from shared.workflows.borders import utf8
from shared.workflows.catalogue import Catalogue
from shared.workflows.declaration import Declaration
from shared.workflows.errors import RunCancelledError, StepError
from shared.workflows.fleet import Fleet
from shared.workflows.run_store import RunStore
from shared.workflows.runs import Begun, Place, Run
from shared.workflows.shape import StepState
from shared.workflows.views import PROGRESS, Event

log = get_logger(__name__)

STEP_TASK = "workers.workflow_step"
_ASK_SECONDS = 1.0
_KILL_SECONDS = 60  # for what a step does about it that is over its time, before its process is killed
_PATIENCE_SECONDS = 300  # with a workflow that is not known here: versions differ while a fleet is updated


class Message(Payload):
    """The message of an attempt.

    Attributes:
        run_id: the run.
        workflow: its workflow.
        step: the step.
        index: the item, of a step that runs over a list.
        attempt: from 1.
        seconds: how long it may take, by the graph that the run was started with.
    """

    run_id: str
    workflow: str
    step: str
    index: int | None = None
    attempt: int = 1
    seconds: float

    @property
    def place(self) -> Place:
        """The piece of work that it is."""
        return Place(self.run_id, self.step, self.index, self.attempt)


def message_of(run: Run, place: Place) -> dict[str, Any]:
    """The arguments of the task."""
    found = Message(
        run_id=run.run_id,
        workflow=run.shape.name,
        step=place.step,
        index=place.index,
        attempt=place.attempt,
        seconds=run.shape.step(place.step).timeout,
    )
    return found.model_dump(exclude_none=True)


def queue_of(run: Run, place: Place) -> str:
    """Where a step goes: the queue that the routing table has for its class."""
    return WORKFLOW_QUEUES[run.shape.step(place.step).priority]


def limits_of(run: Run, place: Place) -> dict[str, int]:
    """The limits of a step where it has a process of its own, which can be ended; threads cannot, and the sweeper is
    there.

    https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits
    """
    seconds = math.ceil(run.shape.step(place.step).timeout)
    return {"soft_time_limit": seconds, "time_limit": seconds + _KILL_SECONDS}


@dataclass(frozen=True, slots=True)
class Runs:
    """What a process holds for its steps: the store, and the workflows that it knows."""

    store: RunStore
    workflows: Catalogue

    def close(self) -> None:
        """Close the connections."""
        self.store.close()


def fleet_of(call: Call) -> Fleet:
    """The runs as this process sees them."""
    settings = call.settings

    def hold() -> Runs:
        store = RunStore(redis_client(settings), settings.stall, settings.workflow_retention)
        return Runs(store, catalogue.load(settings.workflow_modules))

    def send(run: Run, place: Place, seconds: float) -> None:
        queue, arguments, limits = queue_of(run, place), message_of(run, place), limits_of(run, place)
        if not seconds:
            call.send(STEP_TASK, queue, [], arguments, **limits)
            return
        with sending(STEP_TASK, queue):
            send_later(call.app.signature(STEP_TASK, kwargs=arguments, queue=queue, **limits), queue, seconds, settings)

    runs = call.app.resources.held("workflows", hold)
    limits = Limits(settings.workflow_largest, settings.workflow_items)
    return Fleet(runs.store, runs.workflows, limits, send, patient=call.age < _PATIENCE_SECONDS)


class _Seat:
    """A step in a slot of a worker."""

    def __init__(self, call: Call, fleet: Fleet, place: Place, begun: Begun) -> None:
        self._call, self._fleet, self._place = call, fleet, place
        self._given = dict(begun.given)
        self._over, self._asked = False, time.monotonic()

    def output(self, step: str) -> str | None:
        if step not in self._given and self._place.index is not None:
            found = self._fleet.store.output(self._place.run_id, step)
            if found is not None:
                self._given[step] = found
        return self._given.get(step)

    def progress(self, done: float, total: float | None, message: str) -> None:
        place = self._place
        event = Event(
            at=time.time(),
            state=PROGRESS,
            step=place.step,
            index=place.index,
            attempt=place.attempt,
            done=done,
            total=total,
            message=utf8(message) or None,
        )
        self._fleet.store.progress(place.run_id, event)

    def cancelled(self) -> bool:
        """Asked once in a second."""
        if not self._over and time.monotonic() - self._asked >= _ASK_SECONDS:
            self._over, self._asked = self._fleet.store.ended(self._place.run_id), time.monotonic()
        return self._over

    def checkpoint(self) -> None:
        if self._call.slice.over or self._call.stopping.is_set():
            raise HandBack(f"step {self._place.step} goes on in a later delivery")

    def client(self, organization_id: str, deadline: Deadline) -> OrganizationAPI:
        return self._call.app.resources.client.for_organization(organization_id, deadline)

    def guard(self) -> None:
        """Before each request to the backend: the work may be another's by now, or nobody's."""
        if self._call.lease is not None:
            self._call.lease.check()
        if self.cancelled():
            raise RunCancelledError(f"run {self._place.run_id} has ended")


def _about(_args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> Mapping[str, Any]:
    names = {"run_id": "run_id", "workflow": "workflow", "step": "step", "index": "item", "attempt": "attempt"}
    return {said: kwargs.get(name) for name, said in names.items()}


def _work(call: Call, /, *_args: Any, **kwargs: Any) -> Claim:
    message = parse(Message, kwargs)
    fleet = fleet_of(call)
    known, _ = tried(lambda: fleet.known(message.workflow, message.step))
    # What this process does not know does not begin here, nor does its time.
    return (fleet.store.claim if known is None else fleet.store.work)(message.place, message.seconds)


def _give_up(call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None:
    """End a step that has failed for good, or whose processes die; what waits for it goes on from there."""
    message, unreadable = tried(lambda: parse(Message, kwargs))
    if message is None or unreadable is not None:
        bury(call, error, *args, **kwargs)
        return
    fleet = fleet_of(call)
    run = fleet.store.run(message.run_id)
    if run is None:
        log.info("step_without_run", reason=reason_of(error))
        return
    reason = error.reason if isinstance(error, StepError) else call.settings.hide(reason_of(error))
    fleet.failed(run, message.place, reason, last=True)


@task(STEP_TASK, finalizer=_give_up, work=_work, about=_about)
def workflow_step(call: Call, /, **kwargs: Any) -> None:
    """One attempt at a step of a workflow, or at an item of one. Ours alone: no publisher of the platform sends it."""
    message = parse(Message, kwargs)
    note_unknown(Message, kwargs)
    fleet, place = fleet_of(call), message.place
    declaration = fleet.known(message.workflow, message.step)
    begun = fleet.store.found(place, call.lease)
    if begun.run is None:
        raise AlreadyDone("the run has ended")
    if begun.verdict == "done" and begun.state is not None:
        fleet.end(begun.run, place, begun.state)  # which its first delivery may not have lived to see the end of
        return
    if begun.verdict == "stale":
        _catch_up(fleet, begun.run, place, begun.attempt)
        raise AlreadyDone(f"attempt {begun.attempt} is on")
    _attempt(call, fleet, declaration, begun, place)


def _catch_up(fleet: Fleet, run: Run, place: Place, attempt: int) -> None:
    """Send the attempt that is on: the delivery that made it the next one may have died before it could."""
    if attempt == place.attempt + 1:
        fleet.send(run, replace(place, attempt=attempt), 0)


def _attempt(call: Call, fleet: Fleet, declaration: Declaration, begun: Begun, place: Place) -> None:
    run, seat = begun.run, _Seat(call, fleet, place, begun)
    if run is None:
        raise AlreadyDone("the run has ended")
    deadline = Deadline(begun.until, f"step {place.step}", guard=seat.guard)
    context = fleet.context(run, place, seat, begun.parents, deadline)
    text = run.input_text if place.index is None else begun.given[""]
    output, error = tried(lambda: carry_out(declaration, context, text, fleet.limits))
    if deadline.over:
        error = late(run.shape.step(place.step))
    if error is None:
        seat.guard()
        fleet.end(run, place, StepState.SUCCEEDED, output=output)
        return
    if isinstance(error, HandBack) or (passing(error) and not deadline.over):
        raise error
    if seat.cancelled():
        raise AlreadyDone("the run has ended") from error
    reason = call.settings.hide(reason_of(error))
    if place.attempt <= run.shape.step(place.step).retries and not final(error):
        fleet.failed(run, place, reason)
        return
    raise StepError(place.step, place.attempt, reason, place.index) from error
