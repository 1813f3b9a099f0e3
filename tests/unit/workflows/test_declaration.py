"""Mistakes of a declaration are told all together, in plain words, before anything runs."""

import functools
import itertools
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow
from shared.workflows.errors import DeclarationError
from shared.workflows.shape import ON_FAILURE, Shape, cycle


def plain(_self: Any, _input_data: Any, _ctx: TaskContext) -> Any:
    return 1


def step(**options: Any) -> Any:
    """A step like any other, but for these options."""

    def method(_self: Any, _input_data: Any, _ctx: TaskContext) -> Any:
        return 1

    return task(**options)(method)


def declared(*, name: Any = "some", base: Any = BaseWorkflow, options: Any = None, **body: Any) -> Any:
    owner = types.new_class("Some", (base,), exec_body=lambda names: names.update(body))
    return workflow(name=name, **(options or {}))(owner)


def mistakes_of(**declaration: Any) -> list[str]:
    with pytest.raises(DeclarationError) as refused:
        declared(**declaration)
    first, *lines = str(refused.value).splitlines()
    assert first.endswith("cannot be declared:")
    assert all(line.startswith("- ") for line in lines)
    return [line.removeprefix("- ") for line in lines]


async def _awaits(_self: Any, _input_data: Any, _ctx: TaskContext) -> Any:
    return 1


def _yields(_self: Any, _input_data: Any, _ctx: TaskContext) -> Any:
    yield 1


def _gives_bytes(_self: Any, _input_data: Any, _ctx: TaskContext) -> bytes:
    return b""


def _takes_a_set(_self: Any, _input_data: set[str], _ctx: TaskContext) -> None: ...


def _unknown_type(_self: Any, _input_data: "Nowhere", _ctx: TaskContext) -> None: ...  # type: ignore[name-defined] # noqa: F821


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"name": "two words", "a": step()}, "the name 'two words' must be letters, digits, dots, dashes and underscores"),
    ({"name": "", "a": step()}, "the name '' must be letters"),
    ({"name": "x" * 101, "a": step()}, "at most 100"),
    ({"name": None, "a": step()}, "the name None must be"),
    ({f"s{at}": step() for at in range(201)}, "it has 201 steps, and 200 may be; have one run over a list (map_over)"),
    ({}, "it has no step; mark its methods (self, input_data, ctx) with @task"),
    (
        {"options": {"timeout_minutes": 0}, "a": step()},
        "timeout_minutes of the workflow is 0; it must be a number above",
    ),
    ({"options": {"timeout_minutes": float("inf")}, "a": step()}, "is inf; it must be a number above 0"),
    ({"options": {"priority": "urgent"}, "a": step()}, "the workflow has priority 'urgent'; it must be one of high, d"),
    ({"a": step(priority="urgent")}, "step 'a' has priority 'urgent'"),
    ({"a": step(name="on_failure")}, "step 'on_failure': its name must be"),
    ({"a": step(name="a/b")}, "step 'a/b': its name must be"),
    ({"a": step(name="one"), "b": step(name="one")}, "2 steps are called 'one'; give each its own name"),
    ({"a": step(parents="b"), "b": step()}, "parents must be a list of names, as in parents=['extract-text']; 'b' is"),
    ({"a": step(parents=[1])}, "parents must be a list of names"),
    ({"a": step(), "b": step(parents=["aa"])}, "there is no such step; did you mean 'a'?"),
    ({"a": step(parents=["zebra"])}, "step 'a' has parent 'zebra', and there is no such step; there are a"),
    ({"a": step(parents=["a"])}, "steps wait for each other: a ▶ a; take one of these parents away"),
    ({"a": step(parents=["b"]), "b": step(parents=["a"])}, "steps wait for each other: "),
    ({"a": step(timeout_minutes=-1)}, "step 'a': timeout_minutes is -1; it must be a number above 0"),
    ({"a": step(timeout_minutes=True)}, "step 'a': timeout_minutes is True"),
    ({"a": step(timeout_minutes="10")}, "step 'a': timeout_minutes is '10'"),
    ({"a": step(retries=-1)}, "step 'a': retries is -1; it must be a whole number from 0 to 100"),
    ({"a": step(retries=101)}, "step 'a': retries is 101"),
    ({"a": step(retries=1.5)}, "step 'a': retries is 1.5"),
    ({"a": step(backoff_seconds=float("nan"))}, "step 'a': backoff_seconds is nan"),
    ({"a": step(when="yes")}, "step 'a': when must be a function of the context"),
    ({"a": step(map_over=3)}, "step 'a': map_over must be the name of a field"),
    ({"a": step(map_over="pages")}, "map_over='pages' must name a field of the parent's output, or with several paren"),
    ({"a": step(), "b": step(), "c": step(parents=["a", "b"], map_over="pages")}, "its parents are a, b"),
    ({"a": task()(_awaits)}, "must be an ordinary function: def, with return, no async and no yield"),
    ({"a": task()(_yields)}, "must be an ordinary function"),
    ({"a": staticmethod(step())}, "must be a plain method (self, input_data, ctx), neither static nor of the class"),
    ({"a": classmethod(step())}, "must be a plain method"),
    ({"a": task()(functools.partial(plain))}, "must be a plain method"),
    ({"a": task()(lambda _self: 1)}, "has the signature (_self); it must be (self, input_data, ctx)"),
    ({"a": task()(lambda _self, _input, *_ctx: 1)}, "has the signature (_self, _input, *_ctx)"),
    ({"a": task()(lambda _self, _input, *, _ctx: 1)}, "has the signature (_self, _input, *, _ctx)"),
    ({"a": task()(_gives_bytes)}, "its output, bytes is not JSON"),
    ({"a": task()(_takes_a_set)}, "its input, set[str] is not JSON"),
    ({"a": task()(_unknown_type)}, "its annotations cannot be read: name 'Nowhere' is not defined"),
    ({"a": step(), ON_FAILURE: step(parents=["a"])}, "on_failure can have no parents, map_over or when"),
    ({"a": step(), ON_FAILURE: step(retries=-1)}, "on_failure: retries is -1"),
    ({"a": step(), ON_FAILURE: lambda _self: 1}, "on_failure has the signature (_self)"),
    ({"a": step(), ON_FAILURE: 5}, "on_failure must be a plain method"),
    ({"a": step(), "base": object}, "class Some must derive from BaseWorkflow"),
]


@pytest.mark.parametrize(("declaration", "said"), MISTAKES, ids=[said[:40] for _, said in MISTAKES])
def test_a_mistake_is_told(declaration: dict[str, Any], said: str) -> None:
    [told] = [line for line in mistakes_of(**declaration) if said in line]
    assert told


def test_all_mistakes_are_told_together() -> None:
    told = mistakes_of(
        name="two words",
        options={"timeout_minutes": 0, "priority": "urgent"},
        a=step(retries=-1, timeout_minutes=0, parents=["bb"]),
        b=task(parents=["c"], when=1)(_awaits),
        c=step(parents=["b"], map_over="pages.pages.", priority="x"),
        on_failure=step(parents=["a"]),
    )
    parts = ("two words", "timeout_minutes of the w", "urgent", "retries", "step 'a': timeout", "'bb'", "when must")
    for part in (*parts, "no async", "wait for each other", "priority 'x'", "on_failure can have"):
        assert [line for line in told if part in line], part
    assert len(told) == len(set(told))


def test_an_option_that_there_is_not_is_told() -> None:
    with pytest.raises(TypeError, match=r"task\(\) takes no retry; it takes backoff_seconds, map_over, when, priority"):
        task(retry=3)


def test_two_methods_of_one_name_are_told() -> None:
    with pytest.raises(DeclarationError, match="two steps are methods of the name one, and Python keeps the second"):

        @workflow(name="copied")
        class _Copied(BaseWorkflow):
            @task(name="first")
            def one(self, _input_data: Any, _ctx: TaskContext) -> None: ...

            @task(name="second")  # type: ignore[no-redef]
            def one(self, _input_data: Any, _ctx: TaskContext) -> None: ...  # noqa: F811


def test_steps_are_inherited_overwritten_and_added() -> None:
    base = declared(name="base", one=step(), two=step(parents=["one"]), on_failure=plain)
    derived = declared(
        name="derived", base=base, two=step(name="other", parents=["one"]), three=step(parents=["other"])
    )
    assert [one.name for one in base.declaration.shape.steps] == ["one", "two"]
    assert [(one.name, one.parents) for one in derived.declaration.shape.steps] == [
        ("one", ()),
        ("other", ("one",)),
        ("three", ("other",)),
    ]
    assert derived.declaration.shape.on_failure is not None
    without = declared(name="without", base=base, two=None, on_failure=None)
    assert [one.name for one in without.declaration.shape.steps] == ["one"]
    assert without.declaration.shape.on_failure is None


@pytest.mark.parametrize("last", [plain, step(), step(name="clean-up", timeout_minutes=1, retries=3)])
def test_on_failure_may_be_marked_or_not(last: Any) -> None:
    shape = declared(one=step(), on_failure=last).declaration.shape
    assert (shape.on_failure.name, [one.name for one in shape.steps]) == (ON_FAILURE, ["one"])
    assert Shape.of_json(shape.as_json()) == shape


def test_unusual_methods_are_taken() -> None:
    class Page(BaseModel):
        n: int

    def defaults(_self: Any, page: Page | None = None, ctx: Any = None, /) -> list[Page]:
        return [page] if page else ctx

    @functools.wraps(plain)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    found = declared(a=task()(defaults), b=task(parents=["a"], map_over="")(plain), c=task()(wrapped))
    assert found.declaration.methods["a"].gives == list[Page]
    assert found.declaration.shape.step("b").map_over == ("a", "")


@given(
    edges=st.dictionaries(
        st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=3), max_size=8
    )
)
def test_a_cycle_is_found_where_there_is_one(edges: dict[str, list[str]]) -> None:
    found = cycle(edges)
    known = {name: [one for one in of if one in edges] for name, of in edges.items()}
    if found:
        assert found[0] == found[-1]
        assert len(set(found)) == len(found) - 1
        assert all(parent in known[child] for parent, child in itertools.pairwise(found))
        return
    done: set[str] = set()
    for _ in edges:
        done |= {name for name, of in known.items() if done.issuperset(of)}
    assert done == set(known)


def test_declaring_costs_little_and_draws_in_no_engine(record_property: Any) -> None:
    program = (
        "import sys, time\nbegun = time.perf_counter()\nimport shared.workflows.declaration\n"
        "print((time.perf_counter() - begun) * 1_000)\n"
        "print([name for name in ('celery', 'kombu', 'redis', 'hatchet_sdk') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    milliseconds, drawn_in = done.stdout.splitlines()
    record_property("milliseconds", milliseconds)
    assert drawn_in == "[]"
    assert float(milliseconds) < 2_000


class _Pages(BaseModel):
    pages: list[str]
    name: str


@pytest.mark.parametrize(
    ("gives", "over", "said"),
    [
        (_Pages, "sheets", "_Pages has no field 'sheets'"),
        (_Pages, "name", "str is no list"),
        (list[int], "pages", "that is a list itself: leave the field empty, as in map_over='parent.'"),
        (int, "pages", "int has no fields"),
        (dict[str, int], "a.", "dict[str, int] is no list"),
    ],
)
def test_a_list_that_cannot_be_there_is_a_mistake(gives: Any, over: str, said: str) -> None:
    def first(_self: Any, input_data: Any, ctx: TaskContext) -> Any: ...

    def second(_self: Any, input_data: Any, ctx: TaskContext) -> Any: ...

    first.__annotations__["return"] = gives
    body = {"a": task()(first), "b": task(parents=["a"], map_over=over)(second)}
    made = types.new_class("W", (BaseWorkflow,), exec_body=lambda names: names.update(body))
    with pytest.raises(DeclarationError, match=re.escape(f"of what step 'a' gives, {said}")):
        workflow(name="lists")(made)


def test_a_decorator_without_parentheses_says_how_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"write @task\(\) or @task\(name=…\), with parentheses"):
        task(lambda: None)
    with pytest.raises(TypeError, match=r"write @workflow\(name=…\), with parentheses"):
        workflow(BaseWorkflow)
