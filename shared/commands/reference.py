"""`python -m shared.commands.reference [--check]`: what is made from the code in OPERATIONS.md and docker/sample.env.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, the sample's settings below a line that says so. Each is
written anew, or held against the code.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import monitoring.prometheus_metrics  # noqa: F401 # declares them
from monitoring.registry import DECLARED
from shared.config import BaseSettings, ClientSettings, FlowerSettings, MonitorSettings, Settings
from shared.process_health import PAGES as PROBES
from shared.variables import takes_file

_ROOT = Path(__file__).resolve().parents[2]
_STALE = "{} is not what the code says: run `python scripts/render_docs.py`"
_BELOW = "# --- The settings, as scripts/render_docs.py writes them; what else is needed stands above this line. ---\n"


def _settings() -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every variable of the settings, and who reads it."""
    apart = {"monitor": MonitorSettings, "flower": FlowerSettings, "who starts workflows": ClientSettings}
    readers = {**apart, "workers": Settings, "all": BaseSettings}
    by = {spec.name: reader for reader, settings in readers.items() for spec in fields(settings)}
    own = (spec for name, settings in apart.items() for spec in fields(settings) if by[spec.name] == name)
    for spec in (*fields(Settings), *own):
        yield spec.metadata, by[spec.name]


def environment() -> Iterable[Sequence[str]]:
    """Every variable of the settings."""
    yield "variable", "default", "what it is", "read by"
    for said, reader in _settings():
        default = "required" if said["default"] is None and not said["optional"] else said["default"] or ""
        name = f"`{said['name']}`" + (", `…_FILE`" if takes_file(said["parse"]) else "")
        yield name, default, said["about"], reader


def metrics() -> Iterable[Sequence[str]]:
    """Every metric."""
    yield "metric", "kind", "labels", "what it is"
    for metric in DECLARED.values():
        yield f"`{metric.name}`", metric.kind, ", ".join(f"`{name}`" for name in metric.labels), metric.about


def probes() -> Iterable[Sequence[str]]:
    """Every page of a worker."""
    yield "page", "what it says"
    for path, about in PROBES.items():
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


def sampled(text: str) -> str:
    """The sample of an env file with its settings as the code has them. What need not be set is behind a `#`."""
    above, line, _ = text.partition(_BELOW)
    if not line:
        sys.exit("docker/sample.env has no line below which the settings stand")
    lines = []
    for said, reader in _settings():
        name = f"{said['name']}_FILE" if takes_file(said["parse"]) else said["name"]
        if f"\n{name}=" in above:
            continue  # said there already, for what compose makes of it
        # Flower need not run.
        needed = said["default"] is None and not said["optional"] and reader != "flower"
        lines += [f"\n# {said['about']} ({reader})", f"{'' if needed else '#'}{name}={said['default'] or ''}"]
    return above + line + "\n".join(lines) + "\n"


PAGES: Mapping[str, Callable[[str], str]] = {"OPERATIONS.md": rendered, "docker/sample.env": sampled}


def main(arguments: Sequence[str]) -> None:
    """Write the pages, or with `--check` exit 1 if one would be another."""
    for name, render in PAGES.items():
        path = _ROOT / name
        text = path.read_text(encoding="utf-8")
        current = render(text)
        if "--check" not in arguments:
            path.write_text(current, encoding="utf-8")
        elif current != text:
            sys.exit(_STALE.format(name))


if __name__ == "__main__":
    main(sys.argv[1:])
