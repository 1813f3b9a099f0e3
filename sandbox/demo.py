"""`workers demo`: documents through the whole path on this machine, watched while they go.

Nothing is a mock: a broker that speaks its protocol, worker processes, HTTP on loopback, a database.
"""

import io
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from sandbox.demo_view import View
from sandbox.demo_ways import Demo, by_messages, by_workflow, settings_of
from sandbox.driver import Driver
from sandbox.extraction.document import SUPPORTED
from sandbox.parent import end_with_parent
from sandbox.stack import FOUR, Stack, StackError, listens, unusable_broker

_SAMPLES = Path(__file__).parent / "samples"
# The samples that cannot be read, and are there to show how that ends.
_DAMAGED = frozenset({"damaged.pdf"})
_ENGINES = [name for name in ("celery", "local") if find_spec(f"shared.workflows.engines.{name}")]
_BROKERS = {"amqp": 5672, "amqps": 5671, "redis": 6379, "rediss": 6379}
_DATABASES = {"postgresql": 5432, "postgres": 5432}


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, name="demo")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--workers",
    type=click.Choice(["all", "four"]),
    default="four",
    show_default=True,
    help="One process for every queue, or one for each of the four workers.",
)
@click.option(
    "--batches",
    type=click.IntRange(1, 100),
    default=4,
    show_default=True,
    help="Batches that the files are spread over; the files of a batch are taken in turn.",
)
@click.option("--workflow", is_flag=True, help="Take each as a run of the workflow document-processing, step by step.")
@click.option(
    "--engine",
    type=click.Choice(_ENGINES),
    default=_ENGINES[0],
    show_default=True,
    help="What runs the workflow: the workers, or threads of this process alone.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the summary and every result to this file, as JSON.",
)
@click.option("--keep", is_flag=True, help="Keep everything running afterwards, until Ctrl-C.")
@click.option("--broker", metavar="URL", help="A broker of yours, amqp:// or redis://, instead of the embedded one.")
@click.option("--database-url", metavar="URL", help="A PostgreSQL of yours for the backend, instead of SQLite.")
def demo(files: tuple[Path, ...], output: Path | None, **options: Any) -> None:
    """Take FILES, or the samples, through the whole path, and show what comes of each.

    Exit code: 0 if every file ended as it should, 3 if some failed, 2 on a wrong call.
    """
    _check_way(workflow=options["workflow"])
    documents = _documents(files or _samples())
    _check(output, options["broker"], options["database_url"])
    end_with_parent()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        report = _run(documents, _Options(**options))
    except StackError as error:
        sys.exit(f"workers demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if output is not None:
        try:
            output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            sys.exit(f"workers demo: --output: {error}")
    expected = frozenset() if files else _DAMAGED
    sys.exit(0 if all(_as_it_should(row, expected) for row in report["files"]) else 3)


def _as_it_should(row: Mapping[str, Any], damaged: frozenset[str]) -> bool:
    if row["file"] in damaged:
        return bool(row["status"] == "ERROR")
    return row["status"] == "COMPLETED" and row["result"] is not None


def _check_way(*, workflow: bool) -> None:
    """Refuse what only the other way knows."""
    other = "batches" if workflow else "engine"
    if click.get_current_context().get_parameter_source(other) is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--{other} {'does not go' if workflow else 'goes only'} with --workflow")


def _check(output: Path | None, broker: str | None, database_url: str | None) -> None:
    """Name what would fail later, before anything starts."""
    if output is not None and (output.is_dir() or not os.access(output.resolve().parent, os.W_OK)):
        raise click.UsageError(f"--output: {output.resolve()} is not a file that can be written")
    for option, url, ports in (("--broker", broker, _BROKERS), ("--database-url", database_url, _DATABASES)):
        if url is not None:
            _check_address(option, url, ports)


def _check_address(option: str, url: str, ports: Mapping[str, int]) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or ports[parts.scheme]
    except (ValueError, KeyError):
        raise click.UsageError(
            f"{option}: it must be an address, {' or '.join(f'{name}://…' for name in ports)}"
        ) from None
    if not listens(host, port):
        raise click.UsageError(f"{option}: nothing answers at {host}:{port}")
    if ports is _DATABASES and not parts.path.strip("/"):
        raise click.UsageError(f"{option}: it must name a database, as in postgresql://{host}/NAME")
    unusable = unusable_broker(url) if ports is _BROKERS else None
    if unusable:
        raise click.UsageError(f"{option}: {unusable}")


def _samples() -> list[Path]:
    return sorted(path for path in _SAMPLES.iterdir() if path.suffix.lower() in SUPPORTED)


def _documents(files: Iterable[Path]) -> dict[str, Path]:
    """The files by the names they go under, each checked before anything starts."""
    found: dict[str, Path] = {}
    wrong = []
    for path in files:
        reason = _unusable(path)
        if reason:
            wrong.append(f"{click.format_filename(path)}: {reason}")
        name, number = path.name, 1
        while name in found:
            number += 1
            name = f"{path.stem}-{number}{path.suffix}"
        found[name] = path
    if wrong:
        raise click.UsageError("\n".join(wrong))
    return found


def _unusable(path: Path) -> str | None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    if path.suffix.lower() not in SUPPORTED:
        return f"its type is not supported; supported are {', '.join(sorted(SUPPORTED))}"
    if not path.exists():
        return "there is no such file"
    if not path.is_file():
        return "it is not a file"
    return None if os.access(path, os.R_OK) else "it cannot be read; check its permissions"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    workers: str
    batches: int
    workflow: bool
    engine: str
    keep: bool
    broker: str | None
    database_url: str | None


def _run(documents: Mapping[str, Path], options: _Options) -> dict[str, Any]:
    view = View(list(documents))
    begun = time.monotonic()
    with Stack(options.broker, options.database_url) as stack:
        _start(stack, view, options)
        with Driver(stack) as driver:
            demo = Demo(stack, driver, view, documents, options.batches, begun)
            report = by_workflow(demo, options.engine) if options.workflow else by_messages(demo)
        if options.keep:
            _stay(stack, view)
    return report


def _start(stack: Stack, view: View, options: _Options) -> None:
    workers = ["all"] if options.workers == "all" else FOUR
    if options.workflow and options.engine == "local":
        workers = []
    count = {0: "no worker", 1: "one worker", 4: "four workers"}[len(workers)]
    view.say(f"Starting a broker, the reference backend and {count} …")
    stack.start_redis()
    stack.start_backend()
    stack.start_workers(*workers, **settings_of(options.engine) if options.workflow else {})
    stack.wait_until_ready()


def _stay(stack: Stack, view: View) -> None:
    view.say(
        f"Still running: backend {stack.backend_url}, broker {stack.broker_url}, "
        f"logs in {stack.folder}, internal key {stack.key}. Ctrl-C ends it all."
    )
    while True:
        stack.check()
        time.sleep(1)


if __name__ == "__main__":
    demo(prog_name="workers demo")
