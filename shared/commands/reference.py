"""`python -m shared.commands.reference [--check]`: the tables of OPERATIONS.md that are made from the code.

Each stands between `<!-- NAME -->` and `<!-- /NAME -->`, and is written anew, or held against the code.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import monitoring.prometheus_metrics  # noqa: F401 # declares them
from monitoring.registry import DECLARED
from shared.config import BaseSettings, FlowerSettings, MonitorSettings, Settings
from shared.process_health import PAGES
from shared.variables import takes_file

_PAGE = Path(__file__).resolve().parents[2] / "OPERATIONS.md"
_STALE = "tables of OPERATIONS.md are not those of the code: run `python scripts/render_docs.py`"


def environment() -> Iterable[Sequence[str]]:
    """Every variable of the settings."""
    yield "variable", "default", "what it is", "read by"
    apart = {"monitor": MonitorSettings, "flower": FlowerSettings}
    readers = {**apart, "workers": Settings, "all": BaseSettings}
    by = {spec.name: reader for reader, settings in readers.items() for spec in fields(settings)}
    own = (spec for name, settings in apart.items() for spec in fields(settings) if by[spec.name] == name)
    for spec in (*fields(Settings), *own):
        said = spec.metadata
        default = "required" if said["default"] is None and not said["optional"] else said["default"] or ""
        name = f"`{said['name']}`" + (", `…_FILE`" if takes_file(said["parse"]) else "")
        yield name, default, said["about"], by[spec.name]


def metrics() -> Iterable[Sequence[str]]:
    """Every metric."""
    yield "metric", "kind", "labels", "what it is"
    for metric in DECLARED.values():
        yield f"`{metric.name}`", metric.kind, ", ".join(f"`{name}`" for name in metric.labels), metric.about


def probes() -> Iterable[Sequence[str]]:
    """Every page of a worker."""
    yield "page", "what it says"
    for path, about in PAGES.items():
        yield f"`{path}`", about


TABLES = {"environment": environment, "metrics": metrics, "probes": probes}


def rendered(text: str) -> str:
    """That text with its tables as the code has them."""
    for name, rows in TABLES.items():
        header, *lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows()]
        table = "\n".join([header, "|" + "---|" * (header.count(" | ") + 1), *lines])
        place = re.compile(f"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        text, found = place.subn(lambda at, table=table: at[1] + table + at[2], text)  # type: ignore[misc] # bound early
        if found != 1:
            sys.exit(f"OPERATIONS.md has no one place for the table of {name}")
    return text


def main(arguments: Sequence[str]) -> None:
    """Write the page, or with `--check` exit 1 if it would be another one."""
    text = _PAGE.read_text(encoding="utf-8")
    current = rendered(text)
    if "--check" not in arguments:
        _PAGE.write_text(current, encoding="utf-8")
    elif current != text:
        sys.exit(_STALE)


if __name__ == "__main__":
    main(sys.argv[1:])
