"""The graph of a workflow for people: drawn in a terminal, and as Mermaid.

In a terminal it is drawn as `git log --graph` draws history: a line for each step, all behind their parents.

    ●       fetch
    ├─●     classify
    │ │ ●   rules
    ├─│─┼─● check
    ●─╯ │ │ read
    ◆───┴─╯ report

What goes down from a step is its output. It goes into the step below it, and by `├ ┼ ┤`, and for the last time by
`╰ ┴ ╯`, into that of the line; a `│` between dashes is passed by. None waits for a `◆`: its output is the run's.
"""

import re
from collections.abc import Iterator

from shared.workflows.declaration import Declaration
from shared.workflows.shape import ON_FAILURE, Shape

_TIMES = "\N{MULTIPLICATION SIGN}"
_PLAIN = str.maketrans(f"●◆│─├┼┤╰┴╯{_TIMES}", "*o|-+++'''x")


def plain(text: str) -> str:
    """A drawing in ASCII: `+` for what goes on, `'` for what ends."""
    return text.translate(_PLAIN)


def lanes(shape: Shape) -> dict[str, str]:
    """What stands before the name of each step, equally wide; in the order of the drawing, `on_failure` last."""
    drawn: dict[str, str] = {}
    left = {step.name: len(shape.children(step.name)) for step in shape.steps}
    going: list[str] = []  # whose output goes down in each column; "" in one that is free
    for step in shape.in_order():
        joined = {going.index(parent) for parent in step.parents}
        for parent in step.parents:
            left[parent] -= 1
        over = {at for at in joined if not left[going[at]]}
        seat = min(over, default=[*going, ""].index(""))
        row = _row(going, joined, over, seat)
        row[2 * seat] = "●" if left[step.name] else "◆"
        drawn[step.name] = "".join(row).rstrip()
        going = ["" if at in over else name for at, name in enumerate([*going, ""])]
        going[seat] = step.name if left[step.name] else ""
    if shape.on_failure is not None:
        drawn[ON_FAILURE] = "!"
    width = max(map(len, drawn.values()), default=0)
    return {name: row.ljust(width + 1) for name, row in drawn.items()}


def _row(going: list[str], joined: set[int], over: set[int], seat: int) -> list[str]:
    """The columns of a line, with what is between them; the seat is left to the caller."""
    low, high = min(joined | {seat}), max(joined | {seat})
    row: list[str] = []
    for at, name in enumerate([*going, ""]):
        cell = "│" if name else "─" if low < at < high else " "
        if at in joined:
            cell = "├┼┤╰┴╯"[3 * (at in over) + (at > low) + (at == high)]
        row += [cell, "─" if low <= at < high else " "]
    return row


def about(declaration: Declaration, name: str) -> list[str]:
    """What is said of a step beside its name."""
    step = declaration.shape.step(name)
    said = [f"{_TIMES} {step.map_over[1] or step.map_over[0]}"] if step.map_over else []
    said += ["once, after a failure"] if name == ON_FAILURE else []
    said += ["on a condition"] if declaration.methods[name].when else []
    retries = f", {step.retries} {'retry' if step.retries == 1 else 'retries'}" if step.retries else ""
    return [*said, f"at most {span(step.timeout)}{retries}"]


def span(seconds: float) -> str:
    """A time as people say it."""
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"


def mermaid(declaration: Declaration) -> Iterator[str]:
    """Its lines. A step that runs over a list has double walls, one with a condition is a hexagon.

    https://mermaid.js.org/syntax/flowchart.html
    """
    shape = declaration.shape
    number = {step.name: f"s{at}" for at, step in enumerate(shape.steps)}
    yield "flowchart TD"
    for step in shape.steps:
        walls = "{{ }}" if declaration.methods[step.name].when else "[[ ]]" if step.map_over else "[ ]"
        yield f"    {number[step.name]}{_label(declaration, step.name).join(walls.split())}"
    for step in shape.steps:
        yield from (f"    {number[parent]} --> {number[step.name]}" for parent in step.parents)
    if shape.on_failure is not None:
        yield f'    failure(("a step fails")) -.-> last[{_label(declaration, ON_FAILURE)}]'


def _label(declaration: Declaration, name: str) -> str:
    # A field may be any text: what Mermaid could read as its own is written as a character's number.
    own = re.compile(rf"[^\w .,{_TIMES}-]")
    said = (own.sub(lambda mark: f"#{ord(mark[0])};", one) for one in (name, *about(declaration, name)))
    return f'"{"<br/>".join(said)}"'
