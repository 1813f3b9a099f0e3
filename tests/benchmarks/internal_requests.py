"""What a run asks of the reference backend, by kind: of API executions with two files, and with more."""

from collections.abc import Iterator

from sandbox.stack import FOUR
from tests.benchmarks.figures import Aim, Figure
from tests.benchmarks.world import How, await_completed, reference

_ANCHORS = 42


def measure(how: How) -> Iterator[Figure]:
    """Requests of an execution, all that the backend counts: those of timers too, should one fall into it."""
    sizes = (2, how.either(20, 200))
    with reference(how, *FOUR, files=max(sizes)) as world:
        counted = {}
        for files in sizes:
            world.forget_requests()
            await_completed(world.driver, world.post(files))
            world.await_cleared()
            counted[files] = world.requests()
    two, many = (counted[files] for files in sizes)
    total = sum(two.values())
    aim = Aim(_ANCHORS)
    yield Figure(
        "Requests", "of an execution with two files", [total], "", aim, f"originals: {_ANCHORS}", headline=True
    )
    each = (sum(many.values()) - total) / (sizes[1] - sizes[0])
    yield Figure("Requests", "of each file more", [each], "", None, f"{sum(many.values())} for {sizes[1]} files")
    for kind, count in sorted(two.items()):
        yield Figure("Requests", f"`{kind}`", [count], "", None, "two files")
