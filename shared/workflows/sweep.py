"""The sweeper: no run is forgotten, whatever was lost of it. A round on the timer of the worker that takes steps.

Threads cannot be interrupted, so it is here that an attempt whose time is over is given up; what it still says is not
heard. A run of which nothing was heard for STALL_SECONDS is gone through: what nobody is at is sent again, which is
harmless if it only waits in a long queue. One that is past its deadline ends.
"""

import threading
import time
from collections.abc import Mapping
from contextvars import copy_context

from shared.call import Call
from shared.claims import Claim, Lease
from shared.errors import WorkerError
from shared.logging_utils import bind_context, fresh_context, get_logger
from shared.passage import REQUEST_ID, carrying, passage_of
from shared.workflows.attempts import late, reason_of
from shared.workflows.fleet import Fleet
from shared.workflows.runs import Place, Run
from shared.workflows.shape import ENDED, ON_FAILURE, RunStatus, Step, StepState
from shared.workflows.steps import fleet_of
from shared.workflows.views import StepView

log = get_logger(__name__)

_ROUND = Claim("workers:workflows", "round", 3_600)
_LONGEST_WAIT_DOUBLINGS = 5
_LONGEST_LOOK_SECONDS = 30.0


def sweep(call: Call) -> None:
    """One round, by one process of the fleet at a time.

    Raises:
        StateStoreError: the state store is away; the next round will see.
    """
    lease = call.claims.take(_ROUND)
    if not isinstance(lease, Lease):
        return
    fleet = fleet_of(call)
    try:
        for place, over in fleet.store.begun():
            lease.check()
            if over:
                _expire(fleet, place)
            elif call.claims.bereft(fleet.store.claim(place)):
                _take_over(fleet, place)
        for run_id in fleet.store.due():
            lease.check()
            with fresh_context(task="sweeper", run_id=run_id):
                _look_after(call, fleet, run_id)
    finally:
        call.claims.release(lease)


def _expire(fleet: Fleet, place: Place) -> None:
    run = fleet.store.run(place.run_id)
    if run is not None:
        with fresh_context(task="sweeper", run_id=run.run_id, workflow=run.shape.name, step=place.step):
            reason = reason_of(late(run.shape.step(place.step)))
            try:
                with carrying(passage_of({REQUEST_ID: run.request_id})):
                    fleet.failed(run, place, reason)
            except WorkerError as error:
                log.warning("sweeper_failed", reason=str(error))
                return
    fleet.store.strike_off(place)


def _take_over(fleet: Fleet, place: Place) -> None:
    """Send an attempt again whose process died. A Redis broker does so after its visibility timeout alone."""
    run = fleet.store.run(place.run_id)
    if run is None:
        fleet.store.strike_off(place)
        return
    with carrying(passage_of({REQUEST_ID: run.request_id})):
        fleet.send(run, place, 0)
    log.warning("step_taken_over", run_id=run.run_id, workflow=run.shape.name, step=place.step, item=place.index)


def _look_after(call: Call, fleet: Fleet, run_id: str) -> None:
    run = fleet.store.run(run_id)
    if run is None:
        fleet.store.looked_after(run_id, 0)
        log.warning("run_unknown")
        return
    passage = passage_of({REQUEST_ID: run.request_id})
    bind_context(workflow=run.shape.name, organization_id=run.organization_id, request_id=passage.request_id)
    now = time.time()
    again = now + call.settings.stall * 2 ** min(run.looks, _LONGEST_WAIT_DOUBLINGS)
    # Past its deadline it is on_failure alone that is waited for.
    fleet.store.looked_after(run, min(again, run.deadline) if now < run.deadline else now + call.settings.stall)
    with carrying(passage):
        # A condition (when=) may be asked, and is not ours: one that hangs must not hold up the other runs.
        one = threading.Thread(target=copy_context().run, args=(_help, call, fleet, run), name="sweeper", daemon=True)
        one.start()
        one.join(_LONGEST_LOOK_SECONDS)
    if one.is_alive():
        log.warning("run_looked_after_in_vain", seconds=_LONGEST_LOOK_SECONDS)


def _help(call: Call, fleet: Fleet, run: Run) -> None:
    try:
        sent = _end(call, fleet, run) if time.time() >= run.deadline else _send_again(call, fleet, run)
        log.info("run_looked_after", sent=sent, looks=run.looks + 1)
    except WorkerError as error:
        log.warning("sweeper_failed", reason=str(error))


def _send_again(call: Call, fleet: Fleet, run: Run) -> int:
    """Send what has not ended and nobody is at. How many messages that were."""
    steps = fleet.store.view(run.run_id).steps
    states = {name: view.state for name, view in steps.items()}
    sent = 0
    for step in (*run.shape.in_order(), *_begun(run, steps)):
        if states[step.name] in ENDED or not all(states[parent] in ENDED for parent in step.parents):
            continue
        sent += _send_step(call, fleet, run, step, steps)
    if ENDED.issuperset(states.values()):
        fleet.conclude(run, states)
    return sent


def _begun(run: Run, steps: Mapping[str, StepView]) -> list[Step]:
    return [run.shape.on_failure] if run.shape.on_failure is not None and ON_FAILURE in steps else []


def _send_step(call: Call, fleet: Fleet, run: Run, step: Step, steps: Mapping[str, StepView]) -> int:
    view = steps[step.name]
    if view.state is StepState.WAITING:
        fleet.advance(run, step, {parent: steps[parent].state for parent in step.parents})
        return 1
    if view.items is None:
        places = [Place(run.run_id, step.name, None, fleet.store.attempt(run.run_id, step.name))]
    else:
        known = fleet.store.items(run.run_id, step.name)
        ended = {index: StepState(item["state"]) for index, item in known.items() if item.get("state") in ENDED}
        if len(ended) == view.items:
            fleet.fold(run, step, ended)
        places = [
            Place(run.run_id, step.name, index, int(known.get(str(index), {}).get("attempt", 1)))
            for index in range(view.items)
            if str(index) not in ended
        ]
    lost = [place for place in places if not call.claims.alive(fleet.store.claim(place))]
    for place in lost:
        fleet.send(run, place, 0)
    return len(lost)


def _end(call: Call, fleet: Fleet, run: Run) -> int:
    """End a run whose time is over: what has not ended fails, and the rest follows from that."""
    reason = f"the run did not end within {run.shape.timeout:g} s"
    before = fleet.store.view(run.run_id).steps
    for step in run.shape.in_order():
        if fleet.store.view(run.run_id).steps[step.name].state not in ENDED:
            fleet.end(run, Place(run.run_id, step.name, attempt=0), StepState.FAILED, reason)
    last = run.shape.on_failure
    patience = 0 if last is None else last.timeout * (last.retries + 1)
    if time.time() >= run.deadline + patience:
        fleet.finish(run, RunStatus.FAILED, reason)
        return 0
    return _send_again(call, fleet, run) if ON_FAILURE in before else 0
