"""Which status an execution may take after which: the backend lets any overwrite any, so the workers are the guard."""

from shared.models import TERMINAL, Status

# COMPLETED and STOPPED are final. ERROR is, but for the reaper: the files' rows may show that it was wrong.
_AFTER = {
    Status.PENDING: frozenset({Status.EXECUTING, *TERMINAL}),
    Status.EXECUTING: frozenset({Status.EXECUTING, *TERMINAL}),
    Status.COMPLETED: frozenset(),
    Status.STOPPED: frozenset(),
    Status.ERROR: frozenset(),
}


def may_become(now: str, then: Status, *, reaping: bool = False) -> bool:
    """Whether an execution that is `now` may become `then`.

    Args:
        now: what the backend says. A word that is no status, which the backend may hold, is as good as PENDING.
        then: what is to be written.
        reaping: whether the reaper writes, from the files' rows.
    """
    if reaping and now == Status.ERROR:
        return then is Status.COMPLETED
    known = now in Status.__members__
    return then in _AFTER[Status(now) if known else Status.PENDING]
