"""What was measured: each figure with its spread, its aim and what it is held against; as JSON and as a table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should come to, at the most or at the least."""

    bound: float
    least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        section: which part of the benchmark it comes from.
        name: what was measured; unique within the section.
        values: one for each round, all of one run.
        unit: as SI has it: MB are 10^6 bytes; `x` is a ratio of two that were measured in turn.
        aim: what it should come to, if anything was aimed at.
        beside: what it is held against, with its number.
        headline: whether README shows it.
    """

    section: str
    name: str
    values: Sequence[float]
    unit: str
    aim: Aim | None = None
    beside: str = ""
    headline: bool = False

    @property
    def middle(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the aim; None without one."""
        return None if self.aim is None else self.aim.met(self.middle)

    def as_json(self) -> dict[str, Any]:
        """`{section, name, unit, median, least, most, values, aim, met, beside}`; aim and met are null without one."""
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            "median": self.middle,
            "least": min(self.values),
            "most": max(self.values),
            "values": list(self.values),
            "aim": None if self.aim is None else str(self.aim),
            "met": self.met,
            "beside": self.beside,
        }

    def cells(self) -> tuple[str, str, str, str, str]:
        """Section, name, measured, aim, beside."""
        spread = f" ({shown(min(self.values))} to {shown(max(self.values))})" if len(self.values) > 1 else ""
        measured = f"{shown(self.middle)}{spread} {self.unit}".rstrip()
        aim = "" if self.aim is None else f"{self.aim}: {'met' if self.met else '**missed**'}"
        return self.section, self.name, measured, aim, self.beside


def shown(value: float) -> str:
    """Three digits, and no more places than they are worth."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(figures: Sequence[Figure]) -> str:
    """As Markdown; a section is named in its first line alone."""
    lines = ["| | what | measured: median (least to most) | aim | beside |", "|---|---|---|---|---|"]
    named = ""
    for figure in figures:
        section, *cells = figure.cells()
        lines.append(f"| {' | '.join([section if section != named else '', *cells])} |")
        named = section
    return "\n".join(lines)
