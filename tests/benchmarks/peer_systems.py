"""The same work done by other task systems, on the same machine, one after the other in rounds that take turns.

A job is one message; its worker makes a task for each of N files, each of which makes three HTTP requests one after
the other, and one more request when all have ended (`peers/job.py`). Each system is written and set up as its own
documentation has it (`peers/*_peer.py`, with the pages), takes sixteen files at once (Celery's prefork four: one for
each process), and logs as its command does by default. A load is a message for each of many jobs, from the first send
until the last job is done at the server; its tool takes no time, so that the system itself is what is measured.

The kill: in the middle of a load whose files take 50 ms, as one of them begins, the worker's whole process group is
killed and started again at once. Where a project keeps a time after which a dead worker's work is another's, it is set
to ten seconds in place of a minute to an hour (arq adds ten of its own). From then on a job of one file is sent every
second, as traffic would come: some look for lost work only when they have found other. What has not ended a minute
later is lost.
"""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sandbox.stack import Stack, StackError, free_ports, listens, wait_for
from tests.benchmarks.figures import Figure
from tests.benchmarks.peers.ours import Ours
from tests.benchmarks.peers.systems import Running, Seen, System, peers
from tests.benchmarks.world import How, processor_seconds, servers, weigh

_SECTION = "Peers"
_LOAD_SECONDS = 90.0
_KILLED_JOBS, _KILLED_FILES = 40, 5
_TOOL_SECONDS = 0.05
_LIMIT_SECONDS = 10
_PATIENCE_SECONDS = 60.0
_QUIET_SECONDS = 3.0
# No kill begins after this: it may take over a minute, and all has eight.
_LAST_KILL_SECONDS = 400.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each: rounds, jobs and files of a load, one-file jobs for latency, rounds of kills."""

    rounds: int
    jobs: int
    files: int
    single: int
    kills: int


@dataclass(frozen=True, slots=True)
class Load:
    """What one load of one system came to; CPU in ms for each file, memory in MB, latencies in ms."""

    files_per_second: float
    processor: float
    proportional: float
    resident: float
    requests: float
    latencies: Sequence[float]


@dataclass(frozen=True, slots=True)
class Killed:
    """What a kill came to: counts of jobs and files, and seconds from the kill to the last job's end."""

    lost: int
    early: int
    twice: int
    unended: int
    repeated: int
    seconds: float


def measure(how: How) -> Iterator[Figure]:
    """What can be measured here; what cannot is said on standard error."""
    begun = time.monotonic()
    size = Size(how.either(1, 3), how.either(20, 30), 10, how.either(0, 30), how.either(0, 2))
    rabbitmq = how.broker == "rabbitmq"
    ours, per_file = Ours(1, rabbitmq=rabbitmq), Ours(100, rabbitmq=rabbitmq)
    everybody = (ours, per_file, *peers(rabbitmq=rabbitmq))
    chosen = [
        one
        for one in everybody
        if not how.quick or isinstance(one, Ours) or _is_looked_at_quickly(one.name, how.broker)
    ]
    systems = [one for one in chosen if _available(one)]
    with servers(how) as stack:
        server = _start_server(stack)
        loads = _loads(systems, stack, server, size)
        for system in systems:
            if loads[system.name]:
                yield from _figures(system.name, list(loads[system.name].values()))
        yield from _ratios(loads, [ours.name, per_file.name])
        turns = [one for number in range(size.kills) for one in systems[:: -1 if number % 2 else 1]]
        kills = _kills(turns, stack, server, begun + _LAST_KILL_SECONDS)
        for system in systems:
            if kills[system.name]:
                yield from _figures_of_kills(system, kills[system.name])


def _is_looked_at_quickly(name: str, broker: str) -> bool:
    """Celery on the broker that was asked for, and dramatiq."""
    return name.startswith("dramatiq") or (name.startswith("Celery") and name.lower().endswith(broker))


def _loads(systems: Sequence[System], stack: Stack, server: str, size: Size) -> dict[str, dict[int, Load]]:
    found: dict[str, dict[int, Load]] = {system.name: {} for system in systems}
    for number in range(size.rounds):
        # Forth and back, so that none always follows the same one.
        for system in systems if number % 2 == 0 else reversed(systems):
            with _left_out(system):
                load = _load(system, stack, server, size)
                found[system.name][number] = load
                sys.stderr.write(f"peers: round {number + 1}: {system.name}: {load.files_per_second:.0f} files/s\n")
    return found


def _kills(systems: Sequence[System], stack: Stack, server: str, until: float) -> dict[str, list[Killed]]:
    found: dict[str, list[Killed]] = defaultdict(list)
    for system in systems:
        if time.monotonic() > until:
            sys.stderr.write(f"peers: no time is left to kill {system.name}\n")
            continue
        with _left_out(system):
            killed = _kill(system, stack, server)
            found[system.name].append(killed)
            sys.stderr.write(f"peers: killed {system.name}: {killed.lost} jobs lost, {killed.seconds:.1f} s\n")
    return found


@contextmanager
def _left_out(system: System) -> Iterator[None]:
    """Go on without a system that does not do its work, and say so."""
    try:
        yield
    except StackError as error:
        sys.stderr.write(f"peers: {system.name} is left out here: {error}\n")


def _available(system: System) -> bool:
    reason = system.unavailable()
    if reason is not None:
        sys.stderr.write(f"peers: {system.name} is left out: {reason}\n")
    return reason is None


def _start_server(stack: Stack) -> str:
    """Start the server that all peers ask, and give its address."""
    (port,) = free_ports(1)
    stack.start("peers-server", [sys.executable, "-P", "-m", "tests.benchmarks.peers.server", str(port)])
    wait_for(lambda: listens("127.0.0.1", port), 10, "the peers' server")
    return f"http://127.0.0.1:{port}"


def _load(system: System, stack: Stack, server: str, size: Size) -> Load:
    with system.open(stack, server, 0) as running:
        running.reset(0)
        taken = processor_seconds(running.part)
        began = running.send([f"job-{number}" for number in range(size.jobs)], size.files)
        summary = running.wait("job", size.jobs, _LOAD_SECONDS)
        if summary.done < size.jobs or summary.last is None:
            raise StackError(f"{summary.done} of {size.jobs} jobs were done in {_LOAD_SECONDS:g} s")
        taken = processor_seconds(running.part) - taken
        weighed, files = weigh(running.part), size.jobs * size.files
        return Load(
            files_per_second=files / (summary.last - began),
            processor=taken / files * 1000,
            proportional=weighed.proportional,
            resident=weighed.resident,
            requests=running.asked() / files,
            latencies=[_latency(running, number) for number in range(size.single)],
        )


def _latency(running: Running, number: int) -> float:
    """Milliseconds from the send of a job of one file until it is done, while nothing else is there."""
    kind = f"single{number}"
    began = running.send([f"{kind}-0"], 1)
    last = running.wait(kind, 1, _LOAD_SECONDS).last
    if last is None:
        raise StackError(f"a job of one file was not done in {_LOAD_SECONDS:g} s")
    return (last - began) * 1000


def _kill(system: System, stack: Stack, server: str) -> Killed:
    jobs = [f"job-{number}" for number in range(_KILLED_JOBS)]
    with system.open(stack, server, _LIMIT_SECONDS) as running:
        running.reset(_TOOL_SECONDS)
        running.send(jobs, _KILLED_FILES)
        third = _KILLED_JOBS * _KILLED_FILES // 3
        if running.wait("job", _KILLED_JOBS, _LOAD_SECONDS, begun=third).begun < third:
            raise StackError(f"it had not begun {third} files in {_LOAD_SECONDS:g} s")
        killed = running.kill_and_restart()
        last = _settle(running, killed)
        return outcome(running.seen("job"), jobs, (last or killed) - killed)


def _settle(running: Running, killed: float) -> float | None:
    """Wait until all jobs are done and nobody asks for anything of theirs any more; when the last was done."""
    quiet_since, requests, number = time.monotonic(), -1, 0
    while True:
        number += 1
        running.send([f"traffic-{number}"], 1)
        time.sleep(1)
        summary, now = running.wait("job", _KILLED_JOBS, 0), time.monotonic()
        if summary.requests != requests:
            quiet_since, requests = now, summary.requests
        all_done = summary.done == _KILLED_JOBS and now - quiet_since >= _QUIET_SECONDS
        if all_done or now - killed > _PATIENCE_SECONDS:
            return summary.last


def outcome(seen: Seen, jobs: Sequence[str], seconds: float) -> Killed:
    """Count what became of these jobs."""
    asked = [seen.files.get(job, {}).get(str(file), {}) for job in jobs for file in range(_KILLED_FILES)]
    return Killed(
        lost=sum(not seen.done.get(job) for job in jobs),
        early=sum(seen.ended.get(job, _KILLED_FILES) < _KILLED_FILES for job in jobs),
        twice=sum(seen.done.get(job, 0) > 1 for job in jobs),
        unended=sum(not one.get("/status") for one in asked),
        repeated=sum(one.get("/execute", 0) > 1 for one in asked),
        seconds=seconds,
    )


def _figures(name: str, loads: Sequence[Load]) -> Iterator[Figure]:
    yield Figure(_SECTION, f"{name}: files", [one.files_per_second for one in loads], "/s")
    resident = statistics.median(one.resident for one in loads)
    memory = [one.proportional for one in loads]
    yield Figure(_SECTION, f"{name}: memory after it (PSS)", memory, "MB", beside=f"RSS {resident:.0f} MB")
    yield Figure(_SECTION, f"{name}: processor time of a file", [one.processor for one in loads], "ms")
    yield Figure(_SECTION, f"{name}: requests of a file", [one.requests for one in loads], "")
    if all(len(one.latencies) > 1 for one in loads):
        middle = [statistics.median(one.latencies) for one in loads]
        yield Figure(_SECTION, f"{name}: a job of one file, median", middle, "ms")
        most = [statistics.quantiles(one.latencies, n=20, method="inclusive")[-1] for one in loads]
        yield Figure(_SECTION, f"{name}: a job of one file, 95th percentile", most, "ms")


def _ratios(loads: Mapping[str, Mapping[int, Load]], ours: Sequence[str]) -> Iterator[Figure]:
    """How we stand beside each of the others, in the rounds that both have: first with as many messages as they."""
    batched, per_file = ours
    for name, theirs in loads.items():
        both = [number for number in theirs if number in loads[batched] and number in loads[per_file]]
        if name in ours or not both:
            continue

        def ratio(mine: str, what: str, of: Mapping[int, Load] = theirs, rounds: Sequence[int] = both) -> list[float]:
            return [getattr(loads[mine][number], what) / getattr(of[number], what) for number in rounds]

        rates = ratio(per_file, "files_per_second")
        said = [
            f"in batches {statistics.median(ratio(batched, 'files_per_second')):.2f} x",
            f"memory (PSS) {statistics.median(ratio(per_file, 'proportional')):.2f} x",
            f"processor time {statistics.median(ratio(per_file, 'processor')):.2f} x",
            f"in batches {statistics.median(ratio(batched, 'processor')):.2f} x",
        ]
        yield Figure(_SECTION, f"files, these workers / {name}", rates, "x", beside=", ".join(said), headline=True)


def _figures_of_kills(system: System, kills: Sequence[Killed]) -> Iterator[Figure]:
    for name, counts, among in (
        ("jobs lost", [one.lost for one in kills], f"{_KILLED_JOBS} jobs"),
        ("files never ended", [one.unended for one in kills], f"{_KILLED_JOBS * _KILLED_FILES} files"),
        ("files executed more than once", [one.repeated for one in kills], f"{_KILLED_JOBS * _KILLED_FILES} files"),
        ("jobs done before their files", [one.early for one in kills], f"{_KILLED_JOBS} jobs"),
        ("jobs done more than once", [one.twice for one in kills], f"{_KILLED_JOBS} jobs"),
    ):
        # All together: the middle of several kills would hide the one that lost something.
        beside = f"of {among} each in {len(kills)} kills: {', '.join(map(str, counts))}"
        yield Figure(_SECTION, f"{system.name}, killed: {name}", [sum(counts)], "", beside=beside)
    seconds = [one.seconds for one in kills]
    beside = f"a dead worker's work is another's {system.notices}"
    yield Figure(_SECTION, f"{system.name}, killed: until the last was done", seconds, "s", beside=beside)
