"""What metrics and logs cost a task: `uv run python -m tests.benchmarks.observability`.

No-op tasks through one real worker (threads, one slot) on the embedded Valkey, whose log goes to a file, as a
container's does. It is told in turn to count and log, to log alone, and to do neither (no line below a warning), for
some hundred tasks each, again and again. The figure is all of the worker's processor time per task, in nanoseconds by
the kernel's count; the share is that of the round's own `neither`. Only ratios within one run mean anything.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox.stack import Part
from tests.acceptance.probes import Probes, probes

WAYS: Mapping[str, tuple[bool, str]] = {
    "neither": (False, "WARNING"),
    "logs": (False, "INFO"),
    "metrics and logs": (True, "INFO"),
}


def _processor_seconds(worker: Part) -> float:
    """Of all its threads: https://docs.kernel.org/scheduler/sched-stats.html."""
    threads = Path(f"/proc/{worker.pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in threads) / 1e9


def _measure(world: Probes, worker: Part, way: tuple[bool, str], count: int) -> float:
    """Milliseconds of the worker's processor time for each task."""
    world.await_events("watched", 1, 60, world.send("probe.watch", *way))
    before = _processor_seconds(worker)
    world.send_many(count, "probe.nothing")
    world.await_events("ended", 1, 300, world.send("probe.nothing", True))
    return (_processor_seconds(worker) - before) / count * 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description="What metrics and logs cost a task.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--count", type=int, default=500)
    asked = parser.parse_args()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with probes() as world:
        worker = world.start("one", "--concurrency", "1")
        _measure(world, worker, WAYS["neither"], asked.count)
        for number in range(asked.rounds):
            for way in sorted(WAYS, reverse=bool(number % 2)):
                found[way].append(_measure(world, worker, WAYS[way], asked.count))
    sys.stdout.write(
        f"{'':<18}{'ms per task: least':>20}{'median':>9}{'most':>9}{'more than neither: median':>27}{'spread':>18}\n"
    )
    for way, times in found.items():
        shares = sorted(time / none - 1 for time, none in zip(times, found["neither"], strict=True))
        quarters = statistics.quantiles(shares, n=4)
        sys.stdout.write(
            f"{way:<18}{min(times):>20.3f}{statistics.median(times):>9.3f}{max(times):>9.3f}"
            f"{quarters[1]:>15.1%}{f'{quarters[0]:.1%} to {quarters[2]:.1%}':>18}\n"
        )


if __name__ == "__main__":
    main()
