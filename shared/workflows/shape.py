"""The graph of a workflow and the rules of a run, without its code: pure, the same for every engine.

A run is told as the states of its steps. A step is looked at once all its parents have ended. It runs, unless an
ancestor failed (*not run*), or all its parents were skipped (*skipped*: a branch that was not taken, up to where it
joins one that was), or its own condition says no. A failure ends what depends on it and nothing else, so that a run
ends the same way however its branches overtake each other.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from config.queue_routing import Priority

ON_FAILURE = "on_failure"


class StepState(StrEnum):
    """Where a step is."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not_run"
    CANCELLED = "cancelled"


class RunStatus(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.NOT_RUN, StepState.CANCELLED})
_BROKEN = frozenset({StepState.FAILED, StepState.NOT_RUN, StepState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        name: its own within the workflow.
        parents: the steps whose outputs it needs.
        timeout: seconds that one attempt may take.
        retries: attempts after the first.
        backoff: seconds before the second attempt at most; doubled each time, with jitter, up to a minute.
        map_over: (parent, field) of the list that it runs over, an item each; a field "" is the output itself.
        priority: the class of the queue that its messages go to.
    """

    name: str
    parents: tuple[str, ...] = ()
    timeout: float = 600.0
    retries: int = 0
    backoff: float = 1.0
    map_over: tuple[str, str] | None = None
    priority: Priority = Priority.DEFAULT


@dataclass(frozen=True)
class Shape:
    """The graph.

    Attributes:
        name: the workflow's.
        steps: in the order of their declaration.
        timeout: seconds that a run may take.
        on_failure: what runs once after a failure, if anything does.
    """

    name: str
    steps: tuple[Step, ...]
    timeout: float
    on_failure: Step | None = None

    def step(self, name: str) -> Step:
        """The step of that name; `on_failure` among them."""
        return self._by_name[name]

    def children(self, name: str) -> list[Step]:
        """The steps that wait for that one."""
        return [step for step in self.steps if name in step.parents]

    @property
    def roots(self) -> list[Step]:
        """The steps that wait for none."""
        return [step for step in self.steps if not step.parents]

    @property
    def leaves(self) -> list[Step]:
        """The steps that none waits for: their outputs are what a run gives."""
        return [step for step in self.steps if not self.children(step.name)]

    def verdict(self, step: Step, parents: Mapping[str, StepState]) -> StepState:
        """What becomes of a step whose parents have ended so: QUEUED, SKIPPED or NOT_RUN."""
        states = [parents[parent] for parent in step.parents]
        if any(state in _BROKEN for state in states):
            return StepState.NOT_RUN
        return StepState.SKIPPED if states and set(states) == {StepState.SKIPPED} else StepState.QUEUED

    def outcome(self, states: Mapping[str, StepState]) -> RunStatus:
        """What a run has come to whose steps are so."""
        if any(states.get(step.name) not in ENDED for step in self.steps):
            return RunStatus.RUNNING
        failed = any(states[step.name] is StepState.FAILED for step in self.steps)
        return RunStatus.FAILED if failed else RunStatus.SUCCEEDED

    def in_order(self) -> Iterator[Step]:
        """The steps, each behind its parents, else in the order of their declaration."""
        done: set[str] = set()
        while len(done) < len(self.steps):
            ready = next(one for one in self.steps if one.name not in done and done.issuperset(one.parents))
            done.add(ready.name)
            yield ready

    def as_json(self) -> dict[str, Any]:
        """The graph as plain JSON, as a run keeps it."""
        return asdict(self)

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> "Shape":
        """The graph that `as_json` gave."""
        last = stored["on_failure"]
        steps = tuple(map(_step, stored["steps"]))
        return cls(stored["name"], steps, stored["timeout"], _step(last) if last else None)

    @cached_property
    def _by_name(self) -> dict[str, Step]:
        last = () if self.on_failure is None else (self.on_failure,)
        return {step.name: step for step in (*self.steps, *last)}


def _step(stored: Mapping[str, Any]) -> Step:
    over = stored["map_over"]
    return Step(
        **{
            **stored,
            "parents": tuple(stored["parents"]),
            "map_over": tuple(over) if over else None,
            "priority": Priority(stored["priority"]),
        }
    )


def cycle(parents: Mapping[str, Iterable[str]]) -> list[str]:
    """The names of one cycle, its first once more at its end; none if there is none."""
    left = {name: [one for one in of if one in parents] for name, of in parents.items()}
    while free := [name for name, of in left.items() if not any(one in left for one in of)]:
        for name in free:
            del left[name]
    if not left:
        return []
    path = [next(iter(left))]
    while (name := next(one for one in left[path[-1]] if one in left)) not in path:
        path.append(name)
    return [*path[path.index(name) :], name][::-1]
