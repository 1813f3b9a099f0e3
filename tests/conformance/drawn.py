"""Workflows as data: drawn at random, declared as classes, and worked out on paper, without any engine."""

import json
import random
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow
from shared.workflows.shape import RunStatus, StepState

ALWAYS = 99


@dataclass(frozen=True)
class DrawnStep:
    """One step.

    Attributes:
        name: its own.
        parents: what it waits for.
        failures: attempts that fail before one succeeds, of each item in `failing` or of the step itself.
        retries: attempts after the first.
        items: how many items its first parent gives it to run over; None if it runs once.
        failing: the items that fail so.
        skipped: whether its condition says no.
        cancels: whether it cancels the run.
        seconds: how long an attempt takes.
    """

    name: str
    parents: tuple[str, ...] = ()
    failures: int = 0
    retries: int = 0
    items: int | None = None
    failing: tuple[int, ...] = ()
    skipped: bool = False
    cancels: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """A workflow."""

    name: str
    steps: tuple[DrawnStep, ...]
    on_failure: bool = False

    def descendants(self, name: str) -> set[str]:
        found: set[str] = set()
        for step in self.steps:  # parents come first
            if name in step.parents or found.intersection(step.parents):
                found.add(step.name)
        return found


@dataclass
class Expected:
    """What must become of a run, worked out on paper."""

    states: dict[str, StepState] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    failed: list[tuple[str, int, int | None]] = field(default_factory=list)  # step, attempt, item

    @property
    def status(self) -> RunStatus:
        return RunStatus.FAILED if self.failed else RunStatus.SUCCEEDED


def expected(drawn: Drawn) -> Expected:
    found = Expected()
    for step in drawn.steps:
        of = [found.states[parent] for parent in step.parents]
        if StepState.FAILED in of or StepState.NOT_RUN in of:
            found.states[step.name] = StepState.NOT_RUN
        elif (of and set(of) == {StepState.SKIPPED}) or step.skipped:
            found.states[step.name] = StepState.SKIPPED
        else:
            _run_on_paper(step, found)
        found.attempts.setdefault(step.name, 0)
    return found


def _run_on_paper(step: DrawnStep, found: Expected) -> None:
    skipped_list = step.items is not None and found.states[step.parents[0]] is StepState.SKIPPED
    count = 1 if step.items is None else 0 if skipped_list else step.items
    tries = [step.failures if step.items is None or item in step.failing else 0 for item in range(count)]
    found.attempts[step.name] = sum(min(fails, step.retries) + 1 for fails in tries)
    broken = [item for item, fails in enumerate(tries) if fails > step.retries]
    if broken:
        found.states[step.name] = StepState.FAILED
        found.failed.append((step.name, step.retries + 1, None if step.items is None else broken[0]))
        return
    found.states[step.name] = StepState.SUCCEEDED
    below = sum(_value(found.outputs.get(parent)) for parent in step.parents)
    outputs = [below + item + 1 for item in range(count)]
    found.outputs[step.name] = outputs[0] if step.items is None else outputs


def _value(output: Any) -> int:
    return sum(output) if isinstance(output, list) else int(output or 0)


class Journal:
    """A file to which whatever runs a step adds a line: begun, or ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, what: str, ctx: TaskContext) -> None:
        line = {"what": what, "step": ctx.step.name, "item": ctx.index, "attempt": ctx.attempt, "at": time.monotonic()}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


Cancel = Callable[[str], object]


def declare(drawn: Drawn, cancel: Cancel = lambda _run_id: None) -> type[BaseWorkflow]:
    """The class of it. Its input says where the journal is."""
    mapped = {step.parents[0]: step.items for step in drawn.steps if step.items is not None}
    body: dict[str, Any] = {
        f"step_{at}": _method(step, mapped.get(step.name), cancel) for at, step in enumerate(drawn.steps)
    }
    if drawn.on_failure:
        body["on_failure"] = _on_failure
    made: type[BaseWorkflow] = types.new_class("Workflow", (BaseWorkflow,), exec_body=lambda found: found.update(body))
    return workflow(name=drawn.name)(made)


def _on_failure(_self: BaseWorkflow, input_data: Any, ctx: TaskContext) -> None:
    Journal(Path(input_data["journal"])).add("begun", ctx)
    assert ctx.failures


def _method(step: DrawnStep, gives_items: int | None, cancel: Cancel) -> Any:
    def run(_self: BaseWorkflow, input_data: Any, ctx: TaskContext) -> Any:
        journal = Journal(Path(ctx.workflow_input["journal"]))
        journal.add("begun", ctx)
        if step.seconds:
            time.sleep(step.seconds)
        if step.cancels:
            cancel(ctx.run_id)
        fails = step.failures if step.items is None or ctx.index in step.failing else 0
        if ctx.attempt <= fails:
            raise RuntimeError(f"attempt {ctx.attempt} of {step.name} fails")
        below = sum(_total(ctx.task_output(parent)) for parent in step.parents)
        journal.add("ended", ctx)
        value = below + (input_data if step.items is not None else 0) + 1
        return value if gives_items is None else {"value": value, "pages": list(range(gives_items))}

    return task(
        name=step.name,
        parents=list(step.parents),
        retries=step.retries,
        backoff_seconds=0,
        when=(lambda _ctx: False) if step.skipped else None,
        map_over=None if step.items is None else f"{step.parents[0]}.pages",
    )(run)


def _total(output: Any) -> int:
    """A parent's output: a number, one with a list beside it, or those of its items; None if it was skipped."""
    if isinstance(output, list):
        return sum(map(_total, output))
    return int(output["value"] if isinstance(output, Mapping) else output or 0)


def plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a run without the lists that others run over."""
    return {name: _plain(output) for name, output in result.items()}


def _plain(output: Any) -> Any:
    if isinstance(output, list):
        return [_plain(item) for item in output]
    return output["value"] if isinstance(output, Mapping) else output


@st.composite
def workflows(draw: st.DrawFn, *, most: int = 6, cancels: bool = False) -> Drawn:
    """A graph of up to `most` steps: failures, retries, skips, lists; a step that cancels, if wanted."""
    steps: list[DrawnStep] = []
    for at in range(draw(st.integers(1, most))):
        before = [step.name for step in steps]
        parents = tuple(draw(st.lists(st.sampled_from(before), unique=True, max_size=3))) if before else ()
        # Of a list that a list gives, nobody could run over the inner one.
        single = parents and next(step for step in steps if step.name == parents[0]).items is None
        taken = {step.parents[0] for step in steps if step.items is not None}
        items = draw(st.none() | st.integers(0, 4)) if single and parents[0] not in taken else None
        steps.append(
            DrawnStep(
                name=f"s{at}",
                parents=parents,
                failures=draw(st.sampled_from([0, 0, 0, 1, 2, ALWAYS])),
                retries=draw(st.integers(0, 2)),
                items=items,
                failing=tuple(draw(st.lists(st.integers(0, 3), unique=True, max_size=2))) if items else (),
                skipped=draw(st.sampled_from([False, False, False, True])),
            )
        )
    if cancels:
        at = draw(st.integers(0, len(steps) - 1))
        steps[at] = DrawnStep(**{**asdict(steps[at]), "cancels": True, "skipped": False, "failures": 0})
    return Drawn(f"drawn-{draw(st.integers(0, 10**12))}", tuple(steps), draw(st.booleans()))


def by_seed(seed: int) -> Drawn:
    """A workflow of the same kind, the same in every process; its attempts take a while, in which to kill them."""
    chance = random.Random(seed)  # noqa: S311 # it guards nothing
    steps: list[DrawnStep] = []
    for at in range(chance.randint(4, 7)):
        names = [step.name for step in steps]
        parents = tuple(chance.sample(names, chance.randint(1, min(2, len(names))))) if names else ()
        lists = {step.parents[0] for step in steps if step.items is not None}
        single = parents and steps[names.index(parents[0])].items is None and parents[0] not in lists
        steps.append(
            DrawnStep(
                name=f"s{at}",
                parents=parents,
                failures=chance.choice([0, 0, 1, 1, 2, ALWAYS]),
                retries=chance.choice([1, 2, 2]),
                items=chance.randint(2, 6) if single and chance.random() < 0.5 else None,
                failing=(0, 2),
                skipped=chance.random() < 0.1,
                seconds=chance.uniform(0.05, 0.3),
            )
        )
    return Drawn(f"seed-{seed}", tuple(steps), on_failure=chance.random() < 0.7)
