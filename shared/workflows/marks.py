"""What `@task` leaves on a method, before anybody has looked whether it is right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MARK = "__workflow_task__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was said of a step: see `shared.workflows.declaration.task`."""

    name: str | None
    parents: Any
    timeout_minutes: float
    retries: int
    backoff_seconds: float
    map_over: str | None
    when: Callable[[Any], Any] | None
    priority: str | None


PLAIN = Options(
    name=None,
    parents=(),
    timeout_minutes=10,
    retries=0,
    backoff_seconds=1.0,
    map_over=None,
    when=None,
    priority=None,
)


def function_of(value: Any) -> Any:
    """The function of a method, static or not."""
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def options_of(value: Any) -> Options:
    """What was said of a method that is marked."""
    said: Options = getattr(function_of(value), MARK)
    return said


def names_of(parents: Any) -> list[str] | None:
    """The names of parents, if that is what they are: one name alone is a sequence of letters."""
    if isinstance(parents, str) or not isinstance(parents, Sequence):
        return None
    return [one for one in parents if isinstance(one, str)] if all(isinstance(one, str) for one in parents) else None


def over_of(said: Options) -> tuple[str, str] | None:
    """(parent, field): with one parent its name may be left out."""
    if said.map_over is None:
        return None
    named = names_of(said.parents) or []
    for parent in sorted(named, key=len, reverse=True):
        if said.map_over.startswith(f"{parent}."):
            return parent, said.map_over.removeprefix(f"{parent}.")
    return (named[0], said.map_over) if len(named) == 1 else None
