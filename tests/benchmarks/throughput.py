"""How many files and executions the workers take in a second, and what they take for it.

Files: executions of API deployments through the whole path, of which one `file_processing` process is counted; against
the swift backend, which leaves the second core to it, and against the reference backend, whose own processor time is
then said too. Callbacks: executions whose files have all ended, and one `callback` process, started last.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil

from sandbox.stack import Part, wait_for
from tests.benchmarks.figures import Aim, Figure
from tests.benchmarks.world import (
    How,
    Reference,
    Swift,
    await_completed,
    check_completed,
    processor_seconds,
    reference,
    swift,
    weigh,
)

_WORKER = (sys.executable, "-P", "-m", "shared")
_OTHERS = ("api_deployment", "callback")
_FILE_STATUS = "POST v1/file-execution/{id}/status/"
_ANCHORS_CALLBACKS = 3.85  # per second, the middle of 3.7 to 4.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What an execution took: files per second, processor milliseconds per file, resident memory in MB afterwards."""

    rate: float
    milliseconds: float
    resident: float


def _execution(world: Swift, files: int, parts: list[Part]) -> Taken:
    before = sum(processor_seconds(part) for part in parts)
    sent = world.send(files)
    seconds = world.wait(1) - sent
    spent = sum(processor_seconds(part) for part in parts) - before
    return Taken(files / seconds, spent * 1e3 / files, max(weigh(part).resident for part in parts))


def _start(world: Swift, slots: int, processes: int = 1) -> list[Part]:
    """Processes of file_processing, which consume."""
    stack, found = world.stack, []
    for number in range(processes):
        environment = stack.environment(FILE_PROCESSING_CONCURRENCY=str(slots))
        name = f"files-{number}"
        found.append(stack.start(name, [*_WORKER, "file_processing", f"--hostname={name}@%h"], environment))
    stack.wait_until_ready()
    return found


def _instant(how: How) -> Iterator[Figure]:
    """With all cores, and in turn kept to one: threads of one interpreter that have more hand it to and fro."""
    rounds, files = how.either(2, 7), how.either(500, 2_000)
    free, kept = [], []
    with swift(how, *_OTHERS) as world:
        parts = _start(world, 16)
        world.set(tool_seconds=0, batches=16)
        _execution(world, 300, parts)  # warm
        everywhere = os.sched_getaffinity(0)
        for _ in range(rounds):
            free.append(_execution(world, files, parts))
            _keep_to(parts[0], {max(everywhere)})
            kept.append(_execution(world, files, parts))
            _keep_to(parts[0], everywhere)
    beside = "16 slots, swift backend"
    yield Figure("Throughput", "files, instant tools", [one.rate for one in free], "/s", None, beside, headline=True)
    spent = [one.milliseconds for one in free]
    yield Figure("Throughput", "processor time of a file", spent, "ms", None, beside, headline=True)
    said = f"{statistics.median(one.rate for one in kept):.0f}/s, "
    said += f"{statistics.median(one.milliseconds for one in kept):.2f} ms a file"
    ratios = [one.rate / other.rate for one, other in zip(kept, free, strict=True)]
    yield Figure("Throughput", "files, kept to one core / free", ratios, "x", None, said, headline=True)


def _keep_to(part: Part, cores: set[int]) -> None:
    """Have every thread of a process run on these cores alone, as `taskset` would have started it."""
    for thread in psutil.Process(part.pid).threads():
        os.sched_setaffinity(thread.id, cores)


def _slow_tools(how: How) -> Iterator[Figure]:
    rounds, files = how.either(1, 3), how.either(960, 1_920)
    with swift(how, *_OTHERS) as world:
        parts = _start(world, 64)
        world.set(tool_seconds=1, batches=64)
        _execution(world, 64, parts)  # warm
        taken = [_execution(world, files, parts) for _ in range(rounds)]
    name, rates = "files, tools of 1 s, 64 slots", [one.rate for one in taken]
    yield Figure("Throughput", name, rates, "/s", Aim(60, least=True), "swift backend; 64 is the limit", headline=True)
    yield Figure(
        "Throughput", "memory with 64 slots", [one.resident for one in taken], "MB", None, "resident, after it"
    )


def _slow_tools_at_reference(how: How) -> Iterator[Figure]:
    files = 1_280
    settings = {"FILE_PROCESSING_CONCURRENCY": "64"}
    with reference(how, *_OTHERS, "file_processing", files=files, **settings) as world:
        world.set(tool_seconds=1, batches=64)
        _posted(world, 64)  # warm
        before = processor_seconds(world.stack.parts["backend"])
        rate = files / _posted(world, files)
        spent = (processor_seconds(world.stack.parts["backend"]) - before) * rate / files
    said = f"reference backend, which takes {spent:.0%} of a core for it"
    yield Figure("Throughput", "the same, reference backend", [rate], "/s", beside=said)


def _posted(world: Reference, files: int) -> float:
    """Seconds from the end of the post to the execution's end."""
    run = world.post(files)
    begun = time.monotonic()
    await_completed(world.driver, run)
    return time.monotonic() - begun


def _callbacks(how: How) -> Iterator[Figure]:
    rounds, executions = how.either(1, 3), how.either(120, 400)
    rates, spent = [], []
    with reference(how, "api_deployment", "file_processing") as world:
        for number in range(rounds):
            world.forget_requests()
            posted = [world.post(1).execution_id for _ in range(executions)]
            wait_for(lambda: world.requests().get(_FILE_STATUS, 0) >= executions, 120, "the files")
            time.sleep(1)  # what follows the last file's status
            found = _ends(world, executions, f"callback-{number}")
            for execution in posted:
                check_completed(world.driver, execution)
            rates.append(found[0])
            spent.append(found[1])
    aim = Aim(20 * _ANCHORS_CALLBACKS, least=True)
    anchor = f"originals: {_ANCHORS_CALLBACKS} with one process"
    yield Figure("Throughput", "callbacks, reference backend", rates, "/s", aim, anchor, headline=True)
    yield Figure("Throughput", "processor time of a callback", spent, "ms", None, "one process")


def _ends(world: Reference, executions: int, name: str) -> tuple[float, float]:
    """Callbacks per second, and processor milliseconds of one, from the tenth of them to the last but a tenth."""
    stack = world.stack
    part = stack.start(name, [*_WORKER, "callback"], stack.environment())
    tenth = executions // 10
    seen: dict[int, tuple[float, float]] = {}
    while (ended := executions - world.unended()) < executions:
        if tenth <= ended <= executions - tenth:
            seen.setdefault(ended, (time.monotonic(), processor_seconds(part)))
        stack.check()
        time.sleep(0.02)
    first, last = min(seen), max(seen)
    seconds, spent = (seen[last][at] - seen[first][at] for at in (0, 1))
    stack.stop_and_wait(name)
    del stack.parts[name]
    return (last - first) / seconds, spent * 1e3 / (last - first)


def _growth(how: How) -> Iterator[Figure]:
    """With more processes: instant tools take the cores that there are, tools of 1 s take slots."""
    rates: dict[tuple[int, float], float] = {}
    for processes in (1, 2, 4):
        with swift(how, *_OTHERS) as world:
            parts = _start(world, 16, processes)
            for seconds, files in ((0.0, 3_000), (1.0, 16 * processes * 12)):
                world.set(tool_seconds=seconds, batches=16 * processes)
                _execution(world, 16 * processes, parts)  # warm
                rates[processes, seconds] = _execution(world, files, parts).rate
    for seconds, what in ((0.0, "instant tools"), (1.0, "tools of 1 s, 16 slots each")):
        for processes in (2, 4):
            ratio = rates[processes, seconds] / rates[1, seconds]
            beside = f"{rates[processes, seconds]:.0f}/s against {rates[1, seconds]:.0f}/s"
            name = f"{processes} processes / 1, {what}"
            yield Figure("Throughput", name, [ratio], "x", None, beside, headline=processes == 2)


def _sizes(how: How) -> Iterator[Figure]:
    """Time and memory per file must not depend on how many files an execution has."""
    sizes = (100, 1_000) if how.quick else (10, 100, 1_000, 10_000)
    with swift(how, *_OTHERS) as world:
        world.set(tool_seconds=0, batches=10)
        parts = _start(world, 16)
        everybody = [*parts, *(world.stack.parts[name] for name in _OTHERS)]
        for _ in range(how.either(5, 20)):
            _execution(world, 10, parts)  # warm
        taken: Mapping[int, list[Taken]] = {
            files: [
                _execution(world, files, everybody) for _ in range(max(2, min(20, 1_000 // files, how.either(5, 20))))
            ]
            for files in sizes
        }
    for files in sizes:
        rates, memory = [one.rate for one in taken[files]], taken[files][-1].resident
        beside = f"{memory:.0f} MB in the largest of three processes afterwards"
        yield Figure("Throughput", f"files of one execution with {files:,}", rates, "/s", None, beside)
    # The second largest: the start and the end of an execution weigh on each file of a small one.
    least, most = sizes[-2:]
    spent = {files: sorted(one.milliseconds for one in taken[files]) for files in (least, most)}
    ratio = spent[most][len(spent[most]) // 2] / spent[least][len(spent[least]) // 2]
    said = "processor time of all three processes per file"
    yield Figure("Throughput", f"a file of {most:,} / of {least:,}", [ratio], "x", Aim(1.1), said, headline=True)


def measure(how: How) -> Iterator[Figure]:
    """All of the above."""
    yield from _instant(how)
    yield from _slow_tools(how)
    yield from _callbacks(how)
    yield from _sizes(how)
    if not how.quick:
        yield from _slow_tools_at_reference(how)
        yield from _growth(how)
