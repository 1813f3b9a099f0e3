"""The reaper: no execution is forgotten, whatever was lost of it.

Executions are registered when they start, and every progress moves their next look. One that is due is past its
deadline, or nothing was heard of it for STALL_SECONDS. What never started is sent again, a callback that may be lost
too; both are harmless if they are not. What cannot be helped any more is ended from what the backend knows of its
files. The reaper itself writes nothing at the backend: it sends callbacks, which are retried until they get through.
"""

import time

from monitoring.prometheus_metrics import EXECUTIONS_DROPPED, REAPED
from shared.call import Call
from shared.claims import Claim, Lease
from shared.errors import WorkerError
from shared.execution_state import Run
from shared.logging_utils import bind_context, fresh_context, get_logger
from shared.orchestration import batch_claim, finish, send_again
from shared.passage import REQUEST_ID, carrying, passage_of

log = get_logger(__name__)

_ROUND = Claim("workers:reaper", "round", 3_600)
_PATIENT_LOOKS = 2  # at what cannot be helped, before it is ended: its message may still wait in a long queue
_LONGEST_WAIT_DOUBLINGS = 5


def sweep(call: Call) -> None:
    """One round, by one process of the fleet at a time.

    Raises:
        StateStoreError: the state store is away; the next round will see.
    """
    lease = call.claims.take(_ROUND)
    if not isinstance(lease, Lease):
        return
    try:
        for execution_id in call.state.due(time.time()):
            lease.check()
            with fresh_context(task="reaper", execution_id=execution_id):
                _look_after(call, execution_id)
    finally:
        call.claims.release(lease)


def _look_after(call: Call, execution_id: str) -> None:
    run = call.state.run(execution_id)
    if run is None:
        call.state.strike_off(execution_id)
        REAPED.inc(action="struck_off")
        EXECUTIONS_DROPPED.inc()
        log.warning("execution_unknown")
        return
    passage = passage_of({REQUEST_ID: run.request_id})
    bind_context(organization_id=run.organization_id, request_id=passage.request_id)
    try:
        with carrying(passage):
            action = _help(call, run)
    except WorkerError as error:
        log.warning("reaper_failed", reason=str(error))
        action = "failed"
    REAPED.inc(action=action)
    log.info("execution_looked_after", action=action, looks=run.looks + 1)
    call.state.looked_after(execution_id, _next_look(call, run))


def _next_look(call: Call, run: Run) -> float:
    """Later and later: each look may send copies, and a queue that is long must not become longer by them."""
    now = time.time()
    again: float = now + call.settings.stall * 2 ** min(run.looks, _LONGEST_WAIT_DOUBLINGS)
    return again if now >= run.deadline else min(again, run.deadline)


def _help(call: Call, run: Run) -> str:
    """What is done for an execution of which nothing was heard: the name of it."""
    state = call.state
    if call.claims.alive(state.claim(run.execution_id, "callback")):
        return "alive"
    if time.time() >= run.deadline:
        finish(call, run, f"the execution did not end within {call.settings.execution_deadline:g} s")
        return "ended"
    failure, recorded = state.progress(run.execution_id)
    if failure or run.batches == recorded:
        finish(call, run)
        return "callback_sent"
    return _help_the_start(call, run) if run.batches is None else _help_batches(call, run, run.batches)


def _help_the_start(call: Call, run: Run) -> str:
    if call.claims.alive(call.state.claim(run.execution_id, "orchestration")):
        return "alive"
    return _give_up(call, run, "the execution was started, and its message was lost before its files went out")


def _help_batches(call: Call, run: Run, batches: int) -> str:
    if send_again(call, run):
        return "batches_sent"
    if any(call.claims.alive(batch_claim(call, run.execution_id, number)) for number in range(batches)):
        return "alive"
    return _give_up(call, run, "a part of what was known of the execution was lost")


def _give_up(call: Call, run: Run, reason: str) -> str:
    if run.looks < _PATIENT_LOOKS:
        return "waited"
    finish(call, run, reason)
    return "ended"
