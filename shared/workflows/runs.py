"""A run on the fleet as the state store has it, and what names a piece of its work."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from shared.workflows.shape import ENDED, RunStatus, Shape, StepState
from shared.workflows.views import Event, StepView

_PLAIN = {"attempts": int, "items": int, "items_ended": int, "began": float, "ended": float, "done": float}
_PLAIN |= {"total": float, "message": str, "reason": str, "attempt": int, "index": int}


@dataclass(frozen=True, slots=True)
class Run:
    """What every delivery of a run needs to know of it.

    Attributes:
        run_id: its id.
        shape: the graph that it was started with, whatever is declared now.
        input_text: its input.
        organization_id: the tenant's string id.
        request_id: of the user's request that started it.
        run_key: what its starter knows it by.
        deadline: when it must have ended, in seconds since 1970.
        looks: how often the sweeper has looked after it.
    """

    run_id: str
    shape: Shape
    input_text: str
    organization_id: str | None
    request_id: str | None
    deadline: float
    run_key: str | None = None
    looks: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of a run's work: one attempt at a step, or at an item of it.

    Attributes:
        run_id: the run.
        step: the step.
        index: the item, of a step that runs over a list.
        attempt: from 1; 0 for whichever it is at.
    """

    run_id: str
    step: str
    index: int | None = None
    attempt: int = 1

    @property
    def field(self) -> str:
        """How the fields begin in which it is kept."""
        return self.step if self.index is None else str(self.index)

    @property
    def member(self) -> str:
        """What names it among the deadlines."""
        return json.dumps([self.run_id, self.step, self.index, self.attempt])

    @property
    def output(self) -> str:
        """The field of its output."""
        return self.step if self.index is None else f"{self.step}/{self.index}"


@dataclass(frozen=True, slots=True)
class Begun:
    """What a delivery has found.

    Attributes:
        verdict: `taken`; `done`: it has ended before; `stale`: another attempt is on; `ended`: nobody waits for it.
        run: what is known of the run; None where it has ended.
        until: when the attempt's time is over, by the monotonic clock.
        state: what it has ended as.
        attempt: which attempt is on.
        parents: how its parents have ended.
        given: the outputs of its parents by name; of an item, what it is given, under "".
    """

    verdict: str
    run: Run | None = None
    until: float = 0.0
    state: StepState | None = None
    attempt: int = 0
    parents: Mapping[str, StepState] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)


def run_of(run_id: str, known: Mapping[str, str]) -> Run:
    """A run as it is kept."""
    return Run(
        run_id=run_id,
        shape=_shape_of(known["shape"]),
        input_text=known["input"],
        organization_id=known.get("organization_id"),
        request_id=known.get("request_id"),
        deadline=float(known["deadline"]),
        run_key=known.get("run_key"),
        looks=int(known.get("looks", 0)),
    )


@lru_cache(maxsize=256)  # the same graph comes with every delivery
def _shape_of(text: str) -> Shape:
    return Shape.of_json(json.loads(text))


def grouped(stored: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """`{name}:{what}` -> value, as name -> what -> value."""
    found: dict[str, dict[str, str]] = {}
    for both, value in stored.items():
        name, _, what = both.rpartition(":")
        found.setdefault(name, {})[what] = value
    return found


def step_view(known: Mapping[str, str], status: RunStatus) -> StepView:
    """A step of a run with that status, from what is kept of it."""
    state = StepState(known.get("state", StepState.WAITING))
    if status is not RunStatus.RUNNING and state not in ENDED:
        state = StepState.CANCELLED
    said = {name: make(known[name]) for name, make in _PLAIN.items() if name in known}
    if state is StepState.FAILED and said.get("attempts"):
        said.setdefault("attempt", 1)
    else:
        said.pop("attempt", None)
    return StepView(state=state, **said)


def event_of(place: Place, state: str, reason: str | None = None) -> Event:
    """What is told of a place."""
    attempt = place.attempt or None
    return Event(at=time.time(), state=state, step=place.step, index=place.index, attempt=attempt, reason=reason)
