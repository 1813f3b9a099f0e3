"""What processes weigh and how long they take to be ready, in the environment that production has.

Memory is that of a process with its children, one second after it is ready, and where a figure says so once more after
real work. Ready is when it consumes: seconds from the order to start it, looked at every 5 ms. Of proportional memory,
the pages of the interpreter are shared with this benchmark's own processes too. The yardstick is a Celery worker of a
few lines, started as Celery's guide has it, once bare and once with the libraries imported that ours uses.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from config.workers import PROFILES
from sandbox.driver import Driver
from sandbox.stack import FOUR, Stack, StackError
from tests.benchmarks.consolidation import pipeline
from tests.benchmarks.figures import Aim, Figure, shown
from tests.benchmarks.import_costs import import_costs
from tests.benchmarks.production import ROOT, Production, production
from tests.benchmarks.world import How, Weighed, await_completed, documents, kill, servers, weigh

SECTION = "Weight"
WORKER, ALL, READY = Aim(70), Aim(85), Aim(1.5)
_LOOK_SECONDS, _SETTLE_SECONDS, _PATIENCE_SECONDS = 0.005, 1.0, 60.0
_FILES = 200
_PREFORK = {"CELERY_POOL": "prefork", "CELERY_CONCURRENCY": "4"}
_LIBRARIES = "httpx, pydantic, prometheus_client, redis, structlog, tenacity"
_BARE = """from celery import Celery
from celery.signals import worker_ready
app = Celery(broker={broker!r})
@app.task
def nothing(): pass
worker_ready.connect(lambda **_: print('"worker_ready"'), weak=False)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A process to be weighed.

    Attributes:
        argv: what the interpreter is given.
        settings: its environment, beside what every part of a stack has.
        bare: its code, of what is not ours; imported from its own folder.
    """

    name: str
    argv: Sequence[str]
    settings: Mapping[str, str] = field(default_factory=dict)
    bare: str = ""

    @property
    def aims(self) -> tuple[Aim | None, Aim | None]:
        """For resident memory, and until it is ready."""
        resident = {**dict.fromkeys(FOUR, WORKER), "all": ALL}.get(self.name)
        return resident, None if self.bare else READY


@dataclass(frozen=True, slots=True)
class Sample:
    """One start: seconds until it was ready, and what it held then."""

    seconds: float
    held: Weighed


def _profile(name: str) -> Row:
    return Row(name, ("-m", "shared", name))


def _prefork(name: str) -> Row:
    return Row(f"{name}, prefork 4", ("-m", "shared", name), _PREFORK)


BEAT, MONITOR = Row("beat", ("-m", "shared.beat")), Row("monitor", ("-m", "shared.monitor"))
# Without what takes a second to hear of other workers, which ours do not ask for either.
_QUIET = ("--without-mingle", "--without-gossip")
_CELERY = ("-m", "celery", "-A", "bare", "worker", "-P", "threads", "-c", "10", *_QUIET, "-n")
YARDSTICKS = (
    Row("bare Celery worker", (*_CELERY, "bare@%h"), bare=_BARE),
    Row("bare Celery worker with the same libraries", (*_CELERY, "same@%h"), bare=f"import {_LIBRARIES}\n{_BARE}"),
)
HEAVIER = "file_processing, prefork 4"


def rows(how: How) -> list[Row]:
    """What is weighed, in the order of its turns."""
    ours = [_profile(name) for name in (*FOUR, "all")]
    if how.quick:
        return [*ours, BEAT, *YARDSTICKS, _prefork("file_processing")]
    others = [_profile(name) for name in PROFILES if name not in {*FOUR, "all"}]
    return [*ours, *others, BEAT, MONITOR, *YARDSTICKS, *(_prefork(name) for name in (*FOUR, "all"))]


def _start(stack: Stack, on: Production, row: Row) -> None:
    environment = stack.environment(PYTHONPATH=str(ROOT), **row.settings)
    place = ROOT
    if row.bare:
        place = stack.folder / row.name.replace(" ", "-")
        place.mkdir(exist_ok=True)
        (place / "bare.py").write_text(row.bare.format(broker=stack.broker_url))
        environment = stack.environment()
    stack.start(row.name, [on.python, "-P", *row.argv], environment, str(place))


def _until_ready(stack: Stack, row: Row) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not stack.ready(row.name):
        if not stack.alive(row.name) or time.monotonic() > until:
            raise StackError(f"{row.name} was not ready; the end of its log:\n{stack.parts[row.name].tail()}")
        time.sleep(_LOOK_SECONDS)


def _end(stack: Stack, row: Row) -> None:
    """At once, for it holds nothing; but beat has a lock, which the next one would wait for."""
    if row is BEAT:
        stack.stop_and_wait(row.name)
    else:
        kill(stack, row.name)
    del stack.parts[row.name]  # or the stack would miss it


def _sample(stack: Stack, on: Production, row: Row) -> Sample:
    begun = time.monotonic()
    _start(stack, on, row)
    _until_ready(stack, row)
    seconds = time.monotonic() - begun
    time.sleep(_SETTLE_SECONDS)
    sample = Sample(seconds, weigh(stack.parts[row.name]))
    _end(stack, row)
    return sample


def _warm(stack: Stack, on: Production, wanted: Sequence[Row]) -> None:
    """Start each once, all at the same time: what is compiled then is there from then on.

    But for those that differ in settings alone, and would have the names of others among their workers.
    """
    each = [row for row in wanted if not row.settings]
    for row in each:
        _start(stack, on, row)
    for row in each:
        _until_ready(stack, row)
    for row in each:
        _end(stack, row)


def _of_row(row: Row, samples: Sequence[Sample], beside: str) -> Iterator[Figure]:
    resident, ready = row.aims
    counts = sorted({one.held.processes for one in samples})
    said = f"{' to '.join(map(str, counts))} {'process' if counts == [1] else 'processes'}"
    said = f"{said}; {beside}" if beside else said
    yield Figure(SECTION, f"{row.name}: resident", [one.held.resident for one in samples], "MB", resident, said)
    yield Figure(SECTION, f"{row.name}: proportional", [one.held.proportional for one in samples], "MB", beside=beside)
    yield Figure(SECTION, f"{row.name}: ready", [one.seconds for one in samples], "s", ready, beside)


def _headlines(found: Mapping[str, Sequence[Sample]], beside: str) -> Iterator[Figure]:
    def figure(name: str, values: Sequence[float], unit: str, aim: Aim | None, other: str) -> Figure:
        return Figure(SECTION, name, values, unit, aim, "; ".join(filter(None, (other, beside))), headline=True)

    rounds = len(found["all"])
    four = [max(found[name][turn].held.resident for name in FOUR) for turn in range(rounds)]
    slowest = [max(found[name][turn].seconds for name in (*FOUR, "all", "beat")) for turn in range(rounds)]
    own = "the platform's own"
    yield figure(
        "the heaviest of the four workers",
        four,
        "MB",
        WORKER,
        f"{own}: 171 MB with threads, 714 MB with its four processes",
    )
    yield figure("all workers in one process", _resident(found["all"]), "MB", ALL, f"{own}: 3,479 MB for six workers")
    yield figure(
        "until the slowest of workers, `all` and beat is ready",
        slowest,
        "s",
        READY,
        f"{own}: 6.2 s with threads, 7 s with its four processes",
    )
    yield figure("beat", _resident(found["beat"]), "MB", None, "")
    yield figure(
        "file_processing with four processes, proportional",
        [one.held.proportional for one in found[HEAVIER]],
        "MB",
        None,
        f"resident, which counts shared pages for each: {shown(median(_resident(found[HEAVIER])))} MB; {own}: 714 MB",
    )


def _resident(samples: Sequence[Sample]) -> list[float]:
    return [one.held.resident for one in samples]


def _ratios(found: Mapping[str, Sequence[Sample]]) -> Iterator[Figure]:
    """Ours to each yardstick, of the same round."""
    ours = found["file_processing"]
    for row in YARDSTICKS:
        theirs, named = found[row.name], f"file_processing / {row.name}"
        pairs = list(zip(ours, theirs, strict=True))
        resident = [mine.held.resident / their.held.resident for mine, their in pairs]
        yield Figure(SECTION, f"{named}: resident", resident, "x")
        yield Figure(SECTION, f"{named}: ready", [mine.seconds / their.seconds for mine, their in pairs], "x")


def _worked(stack: Stack, on: Production, *profiles: str) -> Iterator[tuple[str, float]]:
    """Have 200 files pass, half by an API request and half by a pipeline; MB of each process a second after."""
    wanted = [_profile(name) for name in profiles]
    for row in wanted:
        _start(stack, on, row)
    for row in wanted:
        _until_ready(stack, row)
    with Driver(stack) as driver, documents(_FILES // 2) as files:
        deployment = driver.deploy(f"weight-{len(profiles)}-{time.monotonic_ns()}", batches=4)
        driver.control("PUT", "switches", {"tool": "echo"})
        await_completed(driver, driver.post(deployment, files))
        await_completed(driver, pipeline(driver, files))
    time.sleep(_SETTLE_SECONDS)
    for row in wanted:
        yield row.name, weigh(stack.parts[row.name]).resident
    for row in wanted:
        _end(stack, row)


def _after_work(stack: Stack, on: Production) -> Iterator[Figure]:
    found: dict[str, list[float]] = defaultdict(list)
    stack.start_backend(SANDBOX_TOOL_WAIT_SECONDS="0.1", SANDBOX_TOOL_WORKERS="16")
    stack.wait_until_ready()
    for _ in range(3):
        for layout in (FOUR, ("all",)):
            for name, resident in _worked(stack, on, *layout):
                found[name].append(resident)
    for name, values in found.items():
        aim = ALL if name == "all" else WORKER
        yield Figure(SECTION, f"{name}, after {_FILES} files: resident", values, "MB", aim, on.beside)


def measure(how: How) -> Iterator[Figure]:
    """What every process weighs, against a bare Celery worker, after work, and what its imports take."""
    found: dict[str, list[Sample]] = defaultdict(list)
    wanted = rows(how)
    with production() as on:
        with servers(how) as stack:
            _warm(stack, on, wanted)
            for _ in range(how.either(1, 5)):
                for row in wanted:
                    found[row.name].append(_sample(stack, on, row))
            yield from _headlines(found, on.beside)
            for row in wanted:
                yield from _of_row(row, found[row.name], on.beside)
            yield from _ratios(found)
            if not how.quick:
                yield from _after_work(stack, on)
        if not how.quick:
            yield from import_costs(on, SECTION, rounds=5)
