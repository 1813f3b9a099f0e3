"""Declaring a workflow: a class, and its steps as methods. Mistakes are found here, all together, before anything runs.

    @workflow(name="greeting")
    class Greeting(BaseWorkflow):
        @task(name="name")
        def name(self, input_data: dict[str, str], ctx: TaskContext) -> str:
            return input_data["name"].title()

        @task(name="greet", parents=["name"], retries=2)
        def greet(self, input_data: dict[str, str], ctx: TaskContext) -> str:
            return f"Good morning, {ctx.task_output('name')}"

An instance is made for every attempt, so what a method leaves on `self` is nobody's.
"""

import difflib
import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, get_type_hints

from config.queue_routing import Priority
from shared.workflows import borders
from shared.workflows.context import TaskContext
from shared.workflows.errors import DeclarationError
from shared.workflows.shape import ON_FAILURE, Shape, Step, cycle

F = TypeVar("F", bound=Callable[..., Any])
W = TypeVar("W", bound=type)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MARK = "__workflow_task__"
_MINUTE = 60.0
_MOST_RETRIES = 100
_SHAPE_OF_A_STEP = "(self, input_data, ctx)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    name: str | None
    parents: Any
    timeout_minutes: float
    retries: int
    backoff_seconds: float
    map_over: str | None
    when: Callable[[TaskContext], Any] | None
    priority: str | None


def task(
    *,
    name: str | None = None,
    parents: Sequence[str] = (),
    timeout_minutes: float = 10,
    retries: int = 0,
    **more: Any,
) -> Callable[[F], F]:
    """Mark a method `(self, input_data, ctx)` as a step.

    Args:
        name: the step's; the method's if it has none.
        parents: names of the steps whose outputs it needs.
        timeout_minutes: how long one attempt may take.
        retries: how often it is tried again.
        more: `backoff_seconds`, the wait before the second attempt at most, 1 by default, doubled each time, up to a
            minute; `map_over="pages"`: it runs for each item of the list in that field of its parent's output (with
            several parents `"parent.pages"`, and `"parent."` where the output is the list), and is given the item as
            `input_data`; its output is the list of theirs. `when`: `(ctx) -> bool`, asked once its parents have ended:
            a false one skips it, and the branch behind it. `priority`: `high`, `default` or `low`, the class of its
            queue; the workflow's by default.
    """
    known = {"backoff_seconds": 1.0, "map_over": None, "when": None, "priority": None}
    if unknown := more.keys() - known.keys():
        raise TypeError(f"task() takes no {', '.join(sorted(unknown))}; it takes {', '.join(known)} besides")
    said = _Options(name=name, parents=parents, timeout_minutes=timeout_minutes, retries=retries, **{**known, **more})

    def mark(method: F) -> F:
        setattr(method, _MARK, said)
        return method

    return mark


class _Body(dict[str, Any]):
    """The body of a class, which knows what was overwritten in it: a step that was copied and not renamed."""

    def __init__(self) -> None:
        super().__init__()
        self.overwritten: list[str] = []

    def __setitem__(self, name: str, value: Any) -> None:
        if hasattr(self.get(name), _MARK):
            self.overwritten.append(name)
        super().__setitem__(name, value)


class _Workflow(type):
    @classmethod
    def __prepare__(cls, _name: str, _bases: tuple[type, ...], /, **_: Any) -> _Body:
        return _Body()

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], /, **options: Any) -> "_Workflow":
        made = super().__new__(cls, name, bases, dict(body), **options)
        made.overwritten = getattr(body, "overwritten", [])
        return made

    overwritten: list[str]


class BaseWorkflow(metaclass=_Workflow):
    """What a workflow derives from. A method `on_failure(self, input_data, ctx)` runs once after a run has failed;
    `ctx.failures` says of what. It may be marked by `task` too, for a timeout and retries of its own.
    """

    declaration: ClassVar["Declaration"]


@dataclass(frozen=True, slots=True)
class Method:
    """The code of one step.

    Attributes:
        function: `(self, input_data, ctx) -> output`.
        takes: annotation of `input_data`; Any where it has none.
        gives: annotation of the output; likewise.
        when: whether it runs at all, if that is a question.
    """

    function: Callable[..., Any]
    takes: Any = Any
    gives: Any = Any
    when: Callable[[TaskContext], Any] | None = None


@dataclass(frozen=True, slots=True)
class Declaration:
    """A workflow that can be right: its graph, and the code of its steps by their names."""

    shape: Shape
    owner: type[BaseWorkflow]
    methods: Mapping[str, Method] = field(repr=False)

    @property
    def name(self) -> str:
        """The workflow's."""
        return self.shape.name

    def gives(self, step: str) -> Any:
        """The annotation of a step's output: that of a list, where it runs over one."""
        one = self.methods[step].gives
        return list[one] if self.shape.step(step).map_over and one is not Any else one  # type: ignore[valid-type]

    def input_text(self, value: Any, largest: int) -> str:
        """The input of a run as JSON, checked against what each step that takes it has declared.

        Raises:
            BorderError: it is not JSON, not as declared, or too large.
        """
        what = f"the input of {self.name}"
        text = borders.to_text(value, Any, what, largest)
        for step in self.shape.steps:
            if step.map_over is None:
                borders.from_text(text, self.methods[step.name].takes, f"{what}, which step {step.name} takes,")
        return text


def workflow(*, name: str, timeout_minutes: float = 240, priority: str = Priority.DEFAULT) -> Callable[[W], W]:
    """Declare a class that derives from `BaseWorkflow`.

    Args:
        name: what it is started by.
        timeout_minutes: how long a run may take.
        priority: the class of the queues of its steps, unless they say otherwise.

    Raises:
        DeclarationError: with a line for each mistake.
    """

    def declare(owner: W) -> W:
        reading = _Reading(owner, name, timeout_minutes, priority)
        owner.declaration = reading.declaration()  # type: ignore[attr-defined] # it is a BaseWorkflow, or refused
        return owner

    return declare


class _Reading:
    """Reads a class, and collects what is wrong with it."""

    def __init__(self, owner: type, name: str, timeout_minutes: float, priority: str) -> None:
        self._owner, self._name, self._timeout, self._priority = owner, name, timeout_minutes, priority
        found = {attribute: value for one in reversed(owner.__mro__) for attribute, value in vars(one).items()}
        last = found.pop(ON_FAILURE, None)
        self._last = last
        self._marked = {at: value for at, value in found.items() if hasattr(_function(value), _MARK)}

    def declaration(self) -> Declaration:
        mistakes = list(dict.fromkeys([*self._of_class(), *self._of_steps(), *self._of_graph()]))
        if mistakes:
            told = "\n".join(f"- {mistake}" for mistake in mistakes)
            raise DeclarationError(f"workflow {self._name!r} ({self._owner.__qualname__}) cannot be declared:\n{told}")
        steps = tuple(self._step(_options(one), at) for at, one in self._marked.items())
        code = {step.name: _method(value) for step, value in zip(steps, self._marked.values(), strict=True)}
        last = None
        if self._last is not None:
            last = self._step(getattr(self._last, _MARK, _PLAIN_OPTIONS), ON_FAILURE)
            code[ON_FAILURE] = _method(self._last)
        shape = Shape(self._name, steps, self._timeout * _MINUTE, last)
        return Declaration(shape, self._owner, code)

    def _step(self, said: _Options, attribute: str) -> Step:
        return Step(
            name=ON_FAILURE if attribute == ON_FAILURE else said.name or attribute,
            parents=tuple(dict.fromkeys(said.parents)),
            timeout=said.timeout_minutes * _MINUTE,
            retries=said.retries,
            backoff=said.backoff_seconds,
            map_over=_over(said),
            priority=Priority(said.priority or self._priority),
        )

    def _of_class(self) -> Iterator[str]:
        if not issubclass(self._owner, BaseWorkflow):
            yield f"class {self._owner.__name__} must derive from BaseWorkflow"
        if not isinstance(self._name, str) or not _NAME.fullmatch(self._name):
            yield f"the name {self._name!r} must be {_NAMES}"
        yield from _number(self._timeout, "timeout_minutes of the workflow", 0)
        yield from _class_of(self._priority, "the workflow")
        if not self._marked:
            yield f"it has no step; mark its methods {_SHAPE_OF_A_STEP} with @task"
        for overwritten in getattr(self._owner, "overwritten", []):
            yield f"two steps are methods of the name {overwritten}, and Python keeps the second alone; rename one"

    def _of_steps(self) -> Iterator[str]:
        names = Counter(_options(one).name or at for at, one in self._marked.items())
        for name in (name for name, count in names.items() if count > 1):
            yield f"{names[name]} steps are called {name!r}; give each its own name"
        for attribute, value in self._marked.items():
            said = _options(value)
            name = said.name or attribute
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name == ON_FAILURE:
                yield f"step {name!r}: its name must be {_NAMES}, and not {ON_FAILURE}"
            yield from _of_options(said, f"step {name!r}")
            yield from _of_method(value, f"step {name!r} (method {attribute})", takes_item=said.map_over is not None)
        if self._last is not None:
            said = getattr(_function(self._last), _MARK, _PLAIN_OPTIONS)
            if said.parents or said.map_over or said.when:
                yield f"{ON_FAILURE} can have no parents, map_over or when: it runs once, after a failure"
            yield from _of_options(said, ON_FAILURE)
            yield from _of_method(self._last, ON_FAILURE, takes_item=False)

    def _of_graph(self) -> Iterator[str]:
        parents: dict[str, list[str]] = {}
        for attribute, value in self._marked.items():
            said = _options(value)
            parents.setdefault(str(said.name or attribute), []).extend(_names(said.parents) or [])
        for name, of in parents.items():
            for parent in (one for one in of if one not in parents):
                near = difflib.get_close_matches(parent, parents, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(parents)}"
                yield f"step {name!r} has parent {parent!r}, and there is no such step; {remedy}"
        if found := cycle(parents):
            yield f"steps wait for each other: {' ▶ '.join(found)}; take one of these parents away"
        for value in self._marked.values():
            yield from self._of_map(_options(value), parents)

    def _of_map(self, said: _Options, parents: Mapping[str, Sequence[str]]) -> Iterator[str]:
        if said.map_over is None:
            return
        named = _names(said.parents) or []
        over = _over(said)
        if over is None or over[0] not in named:
            yield (
                f"map_over={said.map_over!r} must name a field of the parent's output, "
                f"or with several parents 'parent.field'; its parents are {', '.join(named) or 'none'}"
            )


_NAMES = "letters, digits, dots, dashes and underscores, at most 100"
_PLAIN_OPTIONS = _Options(
    name=None,
    parents=(),
    timeout_minutes=10,
    retries=0,
    backoff_seconds=1.0,
    map_over=None,
    when=None,
    priority=None,
)


def _function(value: Any) -> Any:
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def _options(value: Any) -> _Options:
    said: _Options = getattr(_function(value), _MARK)
    return said


def _names(parents: Any) -> list[str] | None:
    """The names of parents, if that is what they are: one name alone is a sequence of letters."""
    if isinstance(parents, str) or not isinstance(parents, Sequence):
        return None
    return [one for one in parents if isinstance(one, str)] if all(isinstance(one, str) for one in parents) else None


def _over(said: _Options) -> tuple[str, str] | None:
    """(parent, field): with one parent its name may be left out."""
    if said.map_over is None:
        return None
    named = _names(said.parents) or []
    for parent in sorted(named, key=len, reverse=True):
        if said.map_over.startswith(f"{parent}."):
            return parent, said.map_over.removeprefix(f"{parent}.")
    return (named[0], said.map_over) if len(named) == 1 else None


def _number(value: Any, what: str, least: float) -> Iterator[str]:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or not (value >= least if least else value > 0):
        yield f"{what} is {value!r}; it must be a number {f'from {least:g}' if least else 'above 0'}"


def _class_of(priority: Any, what: str) -> Iterator[str]:
    if priority not in set(Priority):
        yield f"{what} has priority {priority!r}; it must be one of {', '.join(Priority)}"


def _of_options(said: _Options, what: str) -> Iterator[str]:
    if _names(said.parents) is None:
        yield f"{what}: parents must be a list of names, as in parents=['extract-text']; {said.parents!r} is not"
    yield from _number(said.timeout_minutes, f"{what}: timeout_minutes", 0)
    if not isinstance(said.retries, int) or isinstance(said.retries, bool) or not 0 <= said.retries <= _MOST_RETRIES:
        yield f"{what}: retries is {said.retries!r}; it must be a whole number from 0 to {_MOST_RETRIES}"
    if said.backoff_seconds != 0:
        yield from _number(said.backoff_seconds, f"{what}: backoff_seconds", 0)
    if said.when is not None and not callable(said.when):
        yield f"{what}: when must be a function of the context, as in when=lambda ctx: ctx.task_output('check')['ok']"
    if said.map_over is not None and not isinstance(said.map_over, str):
        yield f"{what}: map_over must be the name of a field, as in map_over='pages'"
    if said.priority is not None:
        yield from _class_of(said.priority, what)


def _of_method(value: Any, what: str, *, takes_item: bool) -> Iterator[str]:
    function = _function(value)
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


def _method(value: Any) -> Method:
    hints = get_type_hints(value, include_extras=True)
    first = list(inspect.signature(value).parameters)[1]
    said: _Options = getattr(value, _MARK, _PLAIN_OPTIONS)
    return Method(value, hints.get(first, Any), hints.get("return", Any), said.when)
