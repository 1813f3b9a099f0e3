"""What the limit of low queues gives and takes: `uv run python -m tests.benchmarks.priorities`.

Each broker in turn, with the limit and without it (low queues that are no lower than the others). Start: seconds until
a task of another queue begins, while low tasks have all the slots they get and more of them wait. Rate: low tasks of
0.1 s, without the limit on as many slots as it leaves them. Only ratios within one run mean anything.
"""

import argparse
import sys
import time
from collections.abc import Mapping

import redis

from sandbox.stack import wait_for
from tests.acceptance.probes import Probes, probes
from tests.conftest import emptied_rabbitmq

SLOTS, FOR_LOW = 48, 32
LOW = ("probe_low", "probe_low_too")
WITH: Mapping[str, str] = {"PROBE_PROFILE": "probe_all"}
WITHOUT = {**WITH, "PROBE_LOW": "default"}


def _said(world: Probes) -> int:
    with redis.Redis.from_url(world.stack.redis_url) as client:
        return int(client.llen("probe:events"))


def _start(url: str | None, settings: Mapping[str, str], slots: int, seconds: float) -> float:
    """The longest of five, one after the other."""
    with probes(url) as world:
        world.start("one", "--concurrency", str(SLOTS), **settings)
        for queue in LOW:
            world.send_many(5 * SLOTS, "probe.work", seconds, queue=queue)
        world.await_events("began", slots, 30)
        found = []
        for _ in range(5):
            sent = time.time()
            (began,) = world.await_events("began", 1, 60, world.send("probe.work", 0.0))
            found.append(began.at - sent)
        return max(found)


def _rate(url: str | None, settings: Mapping[str, str], slots: int, count: int) -> float:
    """Tasks per second, of the middle four fifths of them."""
    with probes(url) as world:
        world.start("one", "--concurrency", str(slots), **settings)
        for queue in LOW:
            world.send_many(count // len(LOW), "probe.work", 0.1, queue=queue)
        wait_for(lambda: _said(world) >= 2 * count, 120, "the end")
        ends = sorted(event.at for event in world.events("ended"))
        first, last = count // 10, count - count // 10 - 1
        return (last - first) / (ends[last] - ends[first])


def _measure(broker: str, url: str | None, seconds: float, count: int) -> None:
    start = [_start(url, WITHOUT, SLOTS, seconds), _start(url, WITH, FOR_LOW, seconds)]
    rate = [_rate(url, WITHOUT, FOR_LOW, count), _rate(url, WITH, SLOTS, count)]
    for what, (without, limited) in (("start, s", start), ("low tasks, 1/s", rate)):
        named = f"{broker}, {what}"
        sys.stdout.write(f"{named:<28}{without:>10.3f}{limited:>10.3f}{limited / without:>10.3f}\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="What the limit of low queues gives and takes.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1_200)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a low task, while starts are measured")
    asked = parser.parse_args()
    sys.stdout.write(f"{'':<28}{'without':>10}{'with':>10}{'ratio':>10}\n")
    with emptied_rabbitmq() as rabbitmq:
        for _ in range(asked.rounds):
            _measure("RabbitMQ", rabbitmq, asked.seconds, asked.count)
            _measure("Redis", None, asked.seconds, asked.count)


if __name__ == "__main__":
    main()
