"""What metrics and logs cost a task: `uv run python -m tests.benchmarks.observability [--broker URL]`.

No-op tasks through one real worker (threads, one slot), whose log goes to a file, as a container's does. Each count and
each line is timed where it happens, by the processor clock of its thread: so caches are as cold as they are at work,
and what it takes to get Python's lock back after a write is in it. The share is that of all the worker's processor time
in the same round, by the kernel's count. Only ratios within one run mean anything.
"""

import argparse
import os
import signal
import statistics
import sys
from pathlib import Path

from sandbox.stack import Part
from tests.acceptance.probes import Probes, probes


def _processor_nanoseconds(worker: Part) -> int:
    """Of all its threads: https://docs.kernel.org/scheduler/sched-stats.html."""
    threads = Path(f"/proc/{worker.pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in threads)


def _metered(world: Probes) -> tuple[int, ...]:
    """Nanoseconds for metrics and for logs since the last time."""
    (said,) = world.await_events("metered", 1, 60, world.send("probe.meter"))
    return tuple(map(int, said.more.split()))


def _measure(world: Probes, worker: Part, count: int) -> tuple[float, ...]:
    """Microseconds for each task: of metrics, of logs, and of everything."""
    _metered(world)
    os.kill(worker.pid, signal.SIGSTOP)  # or it would work beside who sends, now more, now less
    world.send_many(count, "probe.nothing")
    last = world.send("probe.nothing", True)
    before = _processor_nanoseconds(worker)
    os.kill(worker.pid, signal.SIGCONT)
    world.await_events("ended", 1, 300, last)
    whole = _processor_nanoseconds(worker) - before
    return tuple(part / count / 1_000 for part in (*_metered(world), whole))


def main() -> None:
    parser = argparse.ArgumentParser(description="What metrics and logs cost a task.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--broker", help="instead of the embedded Valkey; its probe queues are deleted")
    asked = parser.parse_args()
    with probes(asked.broker) as world:
        worker = world.start("one", "--concurrency", "1")
        _measure(world, worker, asked.count)
        rounds = [_measure(world, worker, asked.count) for _ in range(asked.rounds)]
    sys.stdout.write(f"a task takes {statistics.median(whole for *_, whole in rounds):.0f} µs (median)\n")
    parts = {
        "metrics": [(metrics, whole) for metrics, _, whole in rounds],
        "logs": [(logs, whole) for _, logs, whole in rounds],
        "metrics and logs": [(metrics + logs, whole) for metrics, logs, whole in rounds],
    }
    for name, found in parts.items():
        low, middle, high = statistics.quantiles([part / whole for part, whole in found], n=4)
        took = statistics.median(part for part, _ in found)
        sys.stdout.write(f"{name:<18}{took:>6.1f} µs {middle:>7.1%} of it (quartiles {low:.1%} to {high:.1%})\n")


if __name__ == "__main__":
    main()
