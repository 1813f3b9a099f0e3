"""How long an API execution of one file takes, from its message until the backend has it COMPLETED.

Against the swift backend beside a bare chain of Celery's (`bare_chain.py`): three messages and eleven requests on
either side, to the same server over the same broker, one process each with the same number of threads; one after
another, the two in turns. And against the reference backend, with each worker in a process of its own.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from sandbox.stack import FOUR, wait_for
from tests.benchmarks import bare_chain
from tests.benchmarks.figures import Aim, Figure
from tests.benchmarks.world import How, Swift, publisher, reference, swift

_SLOTS = 16


def _seconds(send: Callable[[], float], wait: Callable[[int], float], count: int) -> list[float]:
    found = []
    for _ in range(count):
        begun = send()
        found.append(wait(1) - begun)
    return found


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def _start_bare(world: Swift) -> Callable[[], float]:
    module = bare_chain.__name__
    celery = [sys.executable, "-m", "celery", "-A", f"{module}:app", "worker", "--loglevel=INFO", "--pool=threads"]
    options = [f"--concurrency={_SLOTS}", "--without-gossip", "--without-mingle", "--hostname=bare@%h"]
    part = world.stack.start("bare", [*celery, *options])
    wait_for(lambda: " ready." in part.said(), 40, "the bare worker")
    app = publisher(world.stack)

    def send() -> float:
        begun = time.monotonic()
        bare_chain.send(app)
        return begun

    return send


def _beside_bare(how: How) -> Iterator[Figure]:
    rounds, count = how.either(5, 10), how.either(20, 60)
    with swift(how, "all", ALL_CONCURRENCY=str(_SLOTS)) as world:
        world.set(tool_seconds=0)
        bare = _start_bare(world)

        def ours() -> float:
            return world.send(1)

        _seconds(bare, world.wait, 10), _seconds(ours, world.wait, 10)  # warm
        pairs = [(_seconds(bare, world.wait, count), _seconds(ours, world.wait, count)) for _ in range(rounds)]
    for name, of in (("p50", statistics.median), ("p95", _p95)):
        theirs, mine = [of(pair[0]) * 1e3 for pair in pairs], [of(pair[1]) * 1e3 for pair in pairs]
        ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
        yield Figure("Latency", f"a bare Celery chain, {name}", theirs, "ms")
        yield Figure("Latency", f"an execution of one file, {name}", mine, "ms", beside="`all`, swift backend")
        beside = f"{statistics.median(mine):.1f} ms against {statistics.median(theirs):.1f} ms"
        yield Figure(
            "Latency", f"an execution / a bare chain, {name}", ratios, "x", Aim(1.5), beside, headline=name == "p50"
        )


def _at_reference(how: How) -> Iterator[Figure]:
    with reference(how, *FOUR) as world:
        world.one(), world.one()  # warm
        found = [world.one() for _ in range(how.either(10, 60))]
    for name, value in (("p50", statistics.median(found)), ("p95", _p95(found))):
        yield Figure("Latency", f"the same, reference backend, {name}", [value * 1e3], "ms", beside="four processes")


def measure(how: How) -> Iterator[Figure]:
    """All of the above."""
    yield from _beside_bare(how)
    yield from _at_reference(how)
