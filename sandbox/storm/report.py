"""What a storm shows: lines while it goes on, and in the end its figures, what was done, and every violation."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sandbox.storm.judge import Evidence, Violation

_WIDTH = 160  # of what is not a terminal: a log, a pipe
_DONE = {
    "kill": "killed",
    "stop": "stopped",
    "end": "told to end",
    "gone": "ended by itself",
    "forced": "outlived its grace",
}


class View:
    """Where a storm writes."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, emoji=False, width=None if Console().is_terminal else _WIDTH)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def finish(self, figures: Mapping[str, str], done: Mapping[str, Counter[str]], found: Sequence[Violation]) -> None:
        """Everything, once it is over."""
        table = Table("part", box=SIMPLE_HEAD)
        for title in _DONE.values():
            table.add_column(title, justify="right")
        for part, counts in sorted(done.items()):
            table.add_row(part, *(str(counts[name] or "") for name in _DONE))
        self._console.print(table)
        table = Table("figure", "", box=SIMPLE_HEAD, show_header=False)
        for name, value in figures.items():
            table.add_row(name, value)
        self._console.print(table)
        for violation in found:
            self.say(f"VIOLATION  {violation.subject}: {violation.what}")
        self.say(f"{len(found)} violations." if found else "Every promise was kept.")


def figures(evidence: Evidence, refused: Mapping[str, int]) -> dict[str, str]:
    """What a storm came to, by what it is."""
    executions = evidence.executions
    files = [file for execution in executions for file in execution["files"]]
    kinds = Counter(execution["kind"] for execution in executions)
    refusals = ", ".join(f"{count} {why}" for why, count in sorted(refused.items()))
    pushed = Counter(file_id for items in evidence.results.values() for file_id, _ in items)
    found = {
        "executions": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
        "confirmed to their users": f"{len(evidence.sent)}; not: {refusals or 'none'}",
        "their status": _counted(execution["status"] for execution in executions),
        "files": _counted(file["status"] or "new" for file in files),
        "tool runs per file, at most": str(max((file["runs"] - file["restarts"] for file in files), default=0)),
        "tool runs begun again by a backend that had died": str(sum(file["restarts"] for file in files)),
        "rows at the destination per file, at most": str(max((file["rows"] for file in files), default=0)),
        "results per file, at most": str(max(pushed.values(), default=0)),
        "messages left": str(sum(evidence.queues.values())),
        "keys left in the state store besides results": str(len(evidence.keys)),
    }
    if evidence.webhooks is not None:
        found["notifications"] = ", ".join(f"{count} {name}" for name, count in evidence.notifications.items())
        found["webhooks"] = ", ".join(f"{count} {name}" for name, count in evidence.webhooks.items())
    return found


def _counted(statuses: Iterable[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(Counter(statuses).items()))
