"""What `workers demo` shows: on a terminal a table that lives, elsewhere a line for each change."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

_WIDTH = 160  # of what is not a terminal: a log, a pipe
_WAITING = "waiting"
_COLOURS = {"COMPLETED": "green", "ERROR": "red", "STOPPED": "red", "executing": "yellow"}


class View:
    """Shows how documents go. `names` are theirs in the order they were given."""

    def __init__(self, names: Sequence[str]) -> None:
        self._console = Console(highlight=False, emoji=False, width=None if Console().is_terminal else _WIDTH)
        self._names = names
        self._shown: dict[str, str] = {}
        self._live = Live(console=self._console, refresh_per_second=8, transient=True, vertical_overflow="ellipsis")

    def say(self, text: str) -> None:
        """One line of its own."""
        self._console.print(text, markup=False)

    def watching(self) -> AbstractContextManager[Any]:
        """The time in which `update` is called."""
        return self._live if self._console.is_terminal else nullcontext()

    def update(self, states: Mapping[str, str]) -> None:
        """Show how these files stand now; the others are as they were."""
        changed = {name: state for name, state in states.items() if self._shown.get(name, _WAITING) != state}
        self._shown |= changed
        if self._console.is_terminal:
            self._live.update(self._progress())
            return
        for name, state in changed.items():
            self._console.print(f"  {name}: {state}", markup=False)

    def _progress(self) -> Table:
        table = Table("file", "state", box=None, padding=(0, 2))
        for name in self._names:
            table.add_row(escape(name), _coloured(self._shown.get(name, _WAITING)))
        return table

    def finish(self, what: str, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        """The table of what came of each file, and where the time went; `what` they went through."""
        table = Table(title=f"{what}: {summary['status']}", title_justify="left", box=SIMPLE_HEAD)
        for column in ("file", "status"):
            table.add_column(column, overflow="fold")
        for column in ("pages", "characters", "seconds"):
            table.add_column(column, justify="right")
        table.add_column("error", overflow="fold")
        for row in rows:
            result = row["result"] or {}
            table.add_row(
                escape(row["file"]),
                _coloured(row["status"]),
                _number(result.get("pages")),
                _number(result.get("characters")),
                f"{row['seconds']:.2f}",
                escape(row["error"] or ""),
            )
        self._console.print(table)
        times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in summary["stages"].items())
        self._console.print(
            f"{summary['successful_files']} of {summary['total_files']} files completed. Time: {times}."
        )
        self._console.print(
            f"The backend was asked {summary['http_requests']} times, and polled {summary['polls']} times."
        )


def _coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/{colour}]" if colour else escape(state)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
