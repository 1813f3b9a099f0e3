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

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar, get_type_hints

from config.queue_routing import Priority
from shared.workflows import borders
from shared.workflows.context import TaskContext
from shared.workflows.errors import DeclarationError
from shared.workflows.marks import MARK, PLAIN, Options, function_of, options_of, over_of
from shared.workflows.mistakes import Said, mistakes
from shared.workflows.shape import ON_FAILURE, Shape, Step

F = TypeVar("F", bound=Callable[..., Any])
W = TypeVar("W", bound=type)

_MINUTE = 60.0


def task(
    *bare: Any,
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
    if bare:
        raise TypeError("write @task() or @task(name=…), with parentheses")
    known = {"backoff_seconds": 1.0, "map_over": None, "when": None, "priority": None}
    if unknown := more.keys() - known.keys():
        raise TypeError(f"task() takes no {', '.join(sorted(unknown))}; it takes {', '.join(known)} besides")
    said = Options(name=name, parents=parents, timeout_minutes=timeout_minutes, retries=retries, **{**known, **more})

    def mark(method: F) -> F:
        setattr(method, MARK, said)
        return method

    return mark


class _Body(dict[str, Any]):
    """The body of a class, which knows what was overwritten in it: a step that was copied and not renamed."""

    def __init__(self) -> None:
        super().__init__()
        self.overwritten: list[str] = []

    def __setitem__(self, name: str, value: Any) -> None:
        if hasattr(self.get(name), MARK):
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

    def gives(self, step: Step) -> Any:
        """The annotation of a step's output: that of a list, where it runs over one. The step is its run's."""
        one = self.methods[step.name].gives if step.name in self.methods else Any
        return list[one] if step.map_over and one is not Any else one  # type: ignore[valid-type]

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


def workflow(
    *bare: Any, name: str = "", timeout_minutes: float = 240, priority: str = Priority.DEFAULT
) -> Callable[[W], W]:
    """Declare a class that derives from `BaseWorkflow`.

    Args:
        name: what it is started by.
        timeout_minutes: how long a run may take.
        priority: the class of the queues of its steps, unless they say otherwise.

    Raises:
        DeclarationError: with a line for each mistake.
    """
    if bare:
        raise TypeError("write @workflow(name=…), with parentheses")

    def declare(owner: W) -> W:
        found = {attribute: value for one in reversed(owner.__mro__) for attribute, value in vars(one).items()}
        last = found.pop(ON_FAILURE, None)
        said = Said(
            name=name,
            timeout_minutes=timeout_minutes,
            priority=priority,
            marked={at: value for at, value in found.items() if hasattr(function_of(value), MARK)},
            last=last,
            overwritten=getattr(owner, "overwritten", ()),
        )
        wrong = [] if issubclass(owner, BaseWorkflow) else [f"class {owner.__name__} must derive from BaseWorkflow"]
        wrong += dict.fromkeys(mistakes(said))
        if wrong:
            told = "\n".join(f"- {mistake}" for mistake in wrong)
            raise DeclarationError(f"workflow {name!r} ({owner.__qualname__}) cannot be declared:\n{told}")
        owner.declaration = _declaration(owner, said)  # type: ignore[attr-defined] # it is a BaseWorkflow
        return owner

    return declare


def _declaration(owner: type[BaseWorkflow], said: Said) -> Declaration:
    steps = {at: _step(options_of(one), at, said.priority) for at, one in said.marked.items()}
    code = {steps[at].name: _method(one) for at, one in said.marked.items()}
    last = None
    if said.last is not None:
        last = replace(_step(getattr(said.last, MARK, PLAIN), ON_FAILURE, said.priority), name=ON_FAILURE)
        code[ON_FAILURE] = _method(said.last)
    shape = Shape(said.name, tuple(steps.values()), said.timeout_minutes * _MINUTE, last)
    return Declaration(shape, owner, code)


def _step(options: Options, attribute: str, priority: str) -> Step:
    return Step(
        name=options.name or attribute,
        parents=tuple(dict.fromkeys(options.parents)),
        timeout=options.timeout_minutes * _MINUTE,
        retries=options.retries,
        backoff=options.backoff_seconds,
        map_over=over_of(options),
        priority=Priority(options.priority or priority),
    )


def _method(value: Any) -> Method:
    hints = get_type_hints(value, include_extras=True)
    first = list(inspect.signature(value).parameters)[1]
    said: Options = getattr(value, MARK, PLAIN)
    return Method(value, hints.get(first, Any), hints.get("return", Any), said.when)
