"""A drawn graph says what the declaration does: every edge can be read back from it, and no other."""

import re
import types
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.commands import drawing
from shared.workflows.declaration import BaseWorkflow, Declaration, task, workflow
from shared.workflows.shape import Shape, Step

Graph = list[tuple[str, ...]]  # the parents of each step, which are called s0, s1, …

_DOWN = {"●", "│", "├", "┼", "┤"}
_JOINED = {"├", "┼", "┤", "╰", "┴", "╯"}
_PLAIN_DOWN = {"*", "|", "+"}
_PLAIN_JOINED = {"+", "'"}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 12))
    order = draw(st.permutations(range(count)))  # declared in any order
    parents: dict[int, tuple[str, ...]] = {}
    for place, step in enumerate(order):
        of = draw(st.lists(st.sampled_from(order[:place]), unique=True, max_size=5)) if place else []
        parents[step] = tuple(f"s{one}" for one in of)
    return [parents[step] for step in range(count)]


def shape_of(graph: Graph) -> Shape:
    return Shape("drawn", tuple(Step(name=f"s{at}", parents=of) for at, of in enumerate(graph)), 60.0)


def drawn(graph: Graph) -> list[str]:
    return [row + name for name, row in drawing.lanes(shape_of(graph)).items()]


def read_back(lines: list[str], seats: str, down: set[str], joined: set[str]) -> dict[str, set[str]]:
    """The parents of each step, by what is drawn alone."""
    rows = [line.split("s")[0] for line in lines]
    names = [f"s{line.split('s')[1]}" for line in lines]

    def source(at: int, column: int) -> str:
        """Up from a place to the step that a line there comes from."""
        while rows[at - 1][column] != seats[0]:
            at -= 1
            assert rows[at][column] in down
        return names[at - 1]

    found: dict[str, set[str]] = {}
    for at, row in enumerate(rows):
        (seat,) = (column for column, mark in enumerate(row) if mark in seats)
        parents = {source(at, seat)} if at and rows[at - 1][seat] in down else set()
        for way in (-1, 1):
            column = seat + way
            while 0 < column < len(row) and row[column] in "─-":
                column += way
                if row[column] in joined:
                    parents.add(source(at, column))
                column += way
        found[names[at]] = parents
    return found


@given(graphs())
@example([(), ()])
@example([(), ("s0",), (), ("s0", "s2"), ("s1", "s0"), ("s4", "s2", "s3")])
def test_every_edge_can_be_read_back(graph: Graph) -> None:
    lines = drawn(graph)
    meant = {f"s{at}": set(of) for at, of in enumerate(graph)}
    assert read_back(lines, "●◆", _DOWN, _JOINED) == meant
    plain = [drawing.plain(line) for line in lines]
    assert "".join(plain).isascii()
    assert read_back(plain, "*o", _PLAIN_DOWN, _PLAIN_JOINED) == meant
    known: set[str] = set()
    for line in lines:
        name = f"s{line.split('s')[1]}"
        assert meant[name] <= known, "a step stands before one of its parents"
        known.add(name)


@given(graphs())
def test_a_step_whose_output_is_the_run_s_is_marked(graph: Graph) -> None:
    leaves = {leaf.name for leaf in shape_of(graph).leaves}
    assert {line.split(" ")[-1] for line in drawn(graph) if "◆" in line} == leaves


@pytest.mark.parametrize(
    ("graph", "picture"),
    [
        ([(), ("s0",), ("s1",)], ["● s0", "● s1", "◆ s2"]),
        ([(), ("s0",), ("s0",), ("s1", "s2")], ["●   s0", "├─● s1", "● │ s2", "◆─╯ s3"]),
        ([(), (), ("s0", "s1")], ["●   s0", "│ ● s1", "◆─╯ s2"]),
        ([(), ()], ["◆ s0", "◆ s1"]),
    ],
    ids=["chain", "diamond", "two roots", "apart"],
)
def test_a_picture_is_narrow(graph: Graph, picture: list[str]) -> None:
    assert drawn(graph) == picture


def test_a_hundred_steps_side_by_side_are_drawn() -> None:
    lines = drawn([(), *[("s0",)] * 100, tuple(f"s{at}" for at in range(1, 101))])
    assert len(lines) == 102
    assert read_back(lines, "●◆", _DOWN, _JOINED)["s101"] == {f"s{at}" for at in range(1, 101)}


def declared() -> Declaration:
    @workflow(name="end")
    class End(BaseWorkflow):
        @task(timeout_minutes=0.5)
        def end(self, _input: Any, _ctx: Any) -> Any: ...

        @task(parents=["end"], map_over='pa"ges]#;', retries=1)
        def mapped(self, _input: Any, _ctx: Any) -> Any: ...

        @task(parents=["end"], map_over="", when=bool, retries=3, timeout_minutes=90)
        def both(self, _input: Any, _ctx: Any) -> Any: ...

        @task(parents=["mapped", "both"], when=bool)
        def asked(self, _input: Any, _ctx: Any) -> Any: ...

        def on_failure(self, _input: Any, _ctx: Any) -> None: ...

    return End.declaration


def test_what_is_said_of_a_step() -> None:
    found = declared()
    assert {name: drawing.about(found, name) for name in drawing.lanes(found.shape)} == {
        "end": ["at most 30 s"],
        "mapped": ['× pa"ges]#;', "at most 10 min, 1 retry"],  # noqa: RUF001 # the sign of multiplication
        "both": ["× end", "on a condition", "at most 90 min, 3 retries"],  # noqa: RUF001
        "asked": ["on a condition", "at most 10 min"],
        "on_failure": ["once, after a failure", "at most 10 min"],
    }
    assert drawing.lanes(found.shape)["on_failure"].strip() == "!"


# What Mermaid's grammar of flowcharts takes, of which it has the shapes that are used here.
_TEXT = r'"(?:[^"#;<>`\\]|#\d+;|<br/>)+"'
_NODE = rf"(?:s\d+|last)(?:\[{_TEXT}\]|\[\[{_TEXT}\]\]|\{{\{{{_TEXT}\}}\}})"
_LINE = re.compile(rf"    (?:{_NODE}|s\d+ --> s\d+|failure\(\({_TEXT}\)\) -\.-> {_NODE})")


def test_mermaid_has_every_step_and_edge_and_no_text_that_it_would_obey() -> None:
    first, *lines = drawing.mermaid(declared())
    assert first == "flowchart TD"
    assert [line for line in lines if not _LINE.fullmatch(line)] == []
    told = "\n".join(lines)
    assert 's0["end<br/>at most 30 s"]' in told, "a step's own name must not be an id: `end` is a word of Mermaid's"
    assert 's1[["mapped<br/>× pa#34;ges#93;#35;#59;<br/>' in told  # noqa: RUF001
    assert 's2{{"both<br/>× end<br/>on a condition<br/>' in told  # noqa: RUF001
    assert re.findall(r"s\d+ --> s\d+", told) == ["s0 --> s1", "s0 --> s2", "s1 --> s3", "s2 --> s3"]
    assert '-.-> last["on_failure<br/>once, after a failure<br/>at most 10 min"]' in told


@given(graphs())
def test_mermaid_has_the_same_edges(graph: Graph) -> None:
    steps = {f"s{at}": task(parents=of)(lambda self, input_data, ctx: None) for at, of in enumerate(graph)}  # noqa: ARG005
    owner = types.new_class("Any", (BaseWorkflow,), exec_body=lambda body: body.update(steps))
    assert issubclass(owner, BaseWorkflow)
    found = workflow(name="any")(owner)
    edges = [line.split(" --> ") for line in drawing.mermaid(found.declaration) if " --> " in line]
    assert {(a.strip(), b) for a, b in edges} == {(parent, f"s{at}") for at, of in enumerate(graph) for parent in of}
