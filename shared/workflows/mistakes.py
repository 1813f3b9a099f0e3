"""What can be wrong with a declaration, each a line in plain words that says what to do."""

import difflib
import inspect
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from config.queue_routing import Priority
from shared.workflows import borders
from shared.workflows.marks import MARK, PLAIN, Options, function_of, names_of, options_of, over_of
from shared.workflows.shape import ON_FAILURE, cycle

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NAMES = "letters, digits, dots, dashes and underscores, at most 100"
_MOST_RETRIES = 100
_MOST_STEPS = 200  # what follows from one end is gone through at once, a step deeper each
_SHAPE_OF_A_STEP = "(self, input_data, ctx)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A declaration as it was written.

    Attributes:
        name: of the workflow.
        timeout_minutes: of a run.
        priority: of its steps.
        marked: its steps, by the names of their methods.
        last: its `on_failure`, if it has one.
        overwritten: methods of steps that were overwritten in the same body.
    """

    name: Any
    timeout_minutes: Any
    priority: Any
    marked: Mapping[str, Any]
    last: Any = None
    overwritten: Sequence[str] = ()


def mistakes(said: Said) -> Iterator[str]:
    """A line for each."""
    yield from _of_class(said)
    yield from _of_steps(said)
    yield from _of_last(said.last)
    yield from _of_graph(said)


def _of_class(said: Said) -> Iterator[str]:
    if not isinstance(said.name, str) or not _NAME.fullmatch(said.name):
        yield f"the name {said.name!r} must be {_NAMES}"
    yield from _number(said.timeout_minutes, "timeout_minutes of the workflow")
    yield from _class_of(said.priority, "the workflow")
    if not said.marked:
        yield f"it has no step; mark its methods {_SHAPE_OF_A_STEP} with @task"
    if len(said.marked) > _MOST_STEPS:
        yield f"it has {len(said.marked)} steps, and {_MOST_STEPS} may be; have one run over a list (map_over) instead"
    for overwritten in said.overwritten:
        yield f"two steps are methods of the name {overwritten}, and Python keeps the second alone; rename one"


def _of_steps(said: Said) -> Iterator[str]:
    names = Counter(str(options_of(one).name or at) for at, one in said.marked.items())
    for name in (name for name, count in names.items() if count > 1):
        yield f"{names[name]} steps are called {name!r}; give each its own name"
    for attribute, value in said.marked.items():
        options = options_of(value)
        name = options.name or attribute
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == ON_FAILURE:
            yield f"step {name!r}: its name must be {_NAMES}, and not {ON_FAILURE}"
        yield from _of_options(options, f"step {name!r}")
        takes_item = options.map_over is not None
        yield from _of_method(value, f"step {name!r} (method {attribute})", takes_item=takes_item)


def _of_last(last: Any) -> Iterator[str]:
    if last is None:
        return
    options = getattr(function_of(last), MARK, PLAIN)
    if options.parents or options.map_over or options.when:
        yield f"{ON_FAILURE} can have no parents, map_over or when: it runs once, after a failure"
    yield from _of_options(options, ON_FAILURE)
    yield from _of_method(last, ON_FAILURE, takes_item=False)


def _of_graph(said: Said) -> Iterator[str]:
    parents: dict[str, list[str]] = {}
    for attribute, value in said.marked.items():
        options = options_of(value)
        parents.setdefault(str(options.name or attribute), []).extend(names_of(options.parents) or [])
    for name, of in parents.items():
        for parent in (one for one in of if one not in parents):
            near = difflib.get_close_matches(parent, parents, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(parents)}"
            yield f"step {name!r} has parent {parent!r}, and there is no such step; {remedy}"
    if found := cycle(parents):
        yield f"steps wait for each other: {' ▶ '.join(found)}; take one of these parents away"
    gives = {str(options_of(one).name or at): _gives(one) for at, one in said.marked.items()}
    yield from (line for value in said.marked.values() for line in _of_map(options_of(value), gives))


def _gives(value: Any) -> Any:
    """The annotation of a step's output, in what is handed on: that of a list, where it runs over one."""
    try:
        given = get_type_hints(function_of(value), include_extras=True).get("return", Any)
    except (NameError, TypeError):  # which is told elsewhere
        return Any
    return given if given is Any or options_of(value).map_over is None else list[given]  # type: ignore[valid-type]


def _of_map(options: Options, gives: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(options.map_over, str):
        return
    named = names_of(options.parents) or []
    over = over_of(options)
    if over is None or over[0] not in named:
        yield (
            f"map_over={options.map_over!r} must name a field of the parent's output, "
            f"or with several parents 'parent.field'; its parents are {', '.join(named) or 'none'}"
        )
    elif problem := borders.no_list(gives.get(over[0], Any), over[1]):
        yield f"map_over={options.map_over!r}: of what step {over[0]!r} gives, {problem}"


def _number(value: Any, what: str) -> Iterator[str]:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or not value > 0:
        yield f"{what} is {value!r}; it must be a number above 0"


def _class_of(priority: Any, what: str) -> Iterator[str]:
    if priority not in set(Priority):
        yield f"{what} has priority {priority!r}; it must be one of {', '.join(Priority)}"


def _of_options(said: Options, what: str) -> Iterator[str]:
    if names_of(said.parents) is None:
        yield f"{what}: parents must be a list of names, as in parents=['extract-text']; {said.parents!r} is not"
    yield from _number(said.timeout_minutes, f"{what}: timeout_minutes")
    if not isinstance(said.retries, int) or isinstance(said.retries, bool) or not 0 <= said.retries <= _MOST_RETRIES:
        yield f"{what}: retries is {said.retries!r}; it must be a whole number from 0 to {_MOST_RETRIES}"
    if said.backoff_seconds != 0:
        yield from _number(said.backoff_seconds, f"{what}: backoff_seconds")
    if said.when is not None and not callable(said.when):
        yield f"{what}: when must be a function of the context, as in when=lambda ctx: ctx.task_output('check')['ok']"
    if said.map_over is not None and not isinstance(said.map_over, str):
        yield f"{what}: map_over must be the name of a field, as in map_over='pages'"
    if said.priority is not None:
        yield from _class_of(said.priority, what)


def _of_method(value: Any, what: str, *, takes_item: bool) -> Iterator[str]:
    function = function_of(value)
    if not inspect.isfunction(value):
        yield f"{what} must be a plain method {_SHAPE_OF_A_STEP}, neither static nor of the class"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        yield f"{what} must be an ordinary function: def, with return, no async and no yield"
    if not callable(function):
        return
    names = list(inspect.signature(function).parameters.values())
    usual = all(one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD} for one in names)
    if len(names) != 3 or not usual:
        yield f"{what} has the signature {inspect.signature(function)}; it must be {_SHAPE_OF_A_STEP}"
        return
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        yield f"{what}: its annotations cannot be read: {error}"
        return
    for name, role in ((names[1].name, "each item" if takes_item else "its input"), ("return", "its output")):
        problem = borders.problem_of(hints.get(name, Any))
        if problem:
            yield f"{what}: {role}, {problem}"
