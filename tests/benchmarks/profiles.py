"""Where the processor time of the hot paths goes: `uv run --with py-spy python -m tests.benchmarks.profiles`.

py-spy looks at a worker 250 times a second while executions flow, at the one thread that holds the interpreter, if any
does. Each look counts for the library or room of ours that is nearest to the top of its stack, so that what the
standard library does for httpcore is httpcore's. Prints a table per hot path as Markdown; `PROFILES.md` has the last
ones, with what was made of them. A process is looked at by who may: root, or its parent where the system lets it.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sandbox.servers import rabbitmq_program
from sandbox.stack import Part
from tests.benchmarks.world import How, Swift, processor_seconds, swift

_LOOKS = 250
_ROOMS = {
    "HTTP: httpx": ("httpx",),
    "HTTP: httpcore, h11": ("httpcore", "h11"),
    "state store: redis-py": ("redis",),
    "broker: celery, kombu, amqp": ("celery", "kombu", "amqp", "vine", "billiard"),
    "parsing: pydantic": ("pydantic", "pydantic_core"),
    "metrics: prometheus_client, monitoring": ("prometheus_client", "monitoring"),
    "log: structlog, shared/logging_utils, shared/redaction": ("structlog",),
    "client of the internal API (ours)": (),
    "state, leases (ours)": (),
    "the rest of ours": ("shared", "file_processing", "callback", "api_deployment", "general", "config"),
}
_CLIENT = "api_\\w+|network|backpressure|circuit_breaker|retry_utils|deadline|backend_protocol|passage|endpoints"
_FILES = {
    r"shared/(logging_utils|redaction|outcome)\.py": "log: structlog, shared/logging_utils, shared/redaction",
    rf"shared/({_CLIENT})\.py": "client of the internal API (ours)",
    r"shared/(state_\w+|execution_state|file_state|claims|reservations)\.py": "state, leases (ours)",
}
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>.*?)(:\d+)?\)$")


def room_of(frames: Sequence[tuple[str, str]]) -> str:
    """Whose a stack is, by the files of its frames from the bottom to the top."""
    for _, file in reversed(frames):
        for pattern, room in _FILES.items():
            if re.fullmatch(pattern, file):
                return room
        for room, packages in _ROOMS.items():
            if file.partition("/")[0] in packages:
                return room
    return "everything else"


def stacks(raw: Path) -> Iterator[tuple[list[tuple[str, str]], int]]:
    """Each stack as function and file, from the bottom to the top, and how often it was seen."""
    for line in raw.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        found = (_FRAME.match(frame) for frame in stack.split(";"))
        yield [(one["name"], one["file"]) for one in found if one], int(count)


def tables(raw: Path, each: float, what: str) -> str:
    """A table of rooms, and one of our functions with all that they call; `each` is processor ms of one `what`."""
    rooms: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for frames, count in stacks(raw):
        rooms[room_of(frames)] += count
        ours = {f"`{name}` ({file})" for name, file in frames if file.startswith(("shared/", "file_pro", "callback/"))}
        functions.update(dict.fromkeys(ours, count))
    total = sum(rooms.values())
    lines = [f"{total} looks; {each:.2f} ms of processor time for each {what}.", ""]
    lines += ["| whose | share |", "|---|---|"]
    lines += [f"| {room} | {count / total:.0%} |" for room, count in rooms.most_common()]
    lines += ["", "| function, with what it calls | share |", "|---|---|"]
    lines += [f"| {name} | {count / total:.0%} |" for name, count in functions.most_common(24)]
    return "\n".join(lines)


def _look(part: Part, raw: Path, seconds: int) -> None:
    py_spy = shutil.which("py-spy")
    if py_spy is None:
        sys.exit("py-spy is not installed here: uv run --with py-spy python -m tests.benchmarks.profiles")
    command = [py_spy, "record", "--gil", "--format=raw", f"--rate={_LOOKS}", f"--duration={seconds}"]
    subprocess.run([*command, f"--pid={part.pid}", f"--output={raw}"], check=True, capture_output=True)


def _profile(world: Swift, name: str, load: tuple[int, int], seconds: int) -> tuple[Path, float]:
    """Look at a process while executions flow, so many of so many files; the looks, and its processor ms per file."""
    executions, files = load
    part, raw = world.stack.parts[name], world.stack.folder / f"{name}.raw"
    before = processor_seconds(part)
    for _ in range(executions):
        world.send(files)
    _look(part, raw, seconds)
    world.wait(executions)
    return raw, (processor_seconds(part) - before) * 1e3 / (executions * files)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the processor time of the hot paths goes.")
    parser.add_argument("--seconds", type=int, default=10)
    asked = parser.parse_args()
    how = How(quick=True, broker="rabbitmq" if rabbitmq_program() else "redis")
    paths: Mapping[str, tuple[str, tuple[int, int], str, int]] = {
        "A file, instant tools, 16 slots": ("file_processing", (1, 450 * asked.seconds), "file", 0),
        "A file, tools of 1 s, 64 slots": ("file_processing", (1, 75 * asked.seconds), "file", 1),
        "The start of an execution": ("api_deployment", (110 * asked.seconds, 1), "execution", 0),
        "The end of an execution": ("callback", (110 * asked.seconds, 1), "execution", 0),
    }
    for title, (name, load, what, tool_seconds) in paths.items():
        slots = 64 if tool_seconds else 16
        settings = {"FILE_PROCESSING_CONCURRENCY": str(slots)}
        with swift(how, "api_deployment", "callback", "file_processing", **settings) as world:
            world.set(tool_seconds=tool_seconds, batches=slots)
            world.send(slots * 2)
            world.wait(1)
            raw, each = _profile(world, name, load, asked.seconds)
            sys.stdout.write(f"## {title}\n\n`{name}`: {tables(raw, each, what)}\n\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
