"""What a workflow costs above bare Celery tasks: `uv run python -m tests.benchmarks.workflows [--broker URL]`.

A lone task, a chain of five, and a chord of one, twenty and one, each as Celery's own canvas with results in Redis, and
as a workflow: the same code, broker, state store, threads, late acknowledgement and confirms. Each side has a worker
process of its own, and takes turns with the other. What is counted is all that a run takes from its start until its
result is here: time; messages that client and worker have published, by Celery's own signal; commands that the state
store has done, those inside its scripts among them; and processor time, of the worker by the kernel's count. Only
ratios within one run mean anything.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from kombu.connection import Connection
from kombu.entity import Queue

from config.queue_routing import WORKFLOW_QUEUES
from sandbox.stack import Part, Stack, wait_for
from shared.workflows import catalogue
from shared.workflows.attempts import Limits
from shared.workflows.client import TaskClient
from shared.workflows.engines.celery import CeleryEngine, FleetSettings
from tests.benchmarks import chains_and_chords
from tests.benchmarks.chains_and_chords import ITEMS, QUEUE, bare_chain, bare_chord, bare_lone, make_bare, published
from tests.benchmarks.observability import _processor_nanoseconds

_MODULE = chains_and_chords.__name__
_SECONDS = 60
ROWS = ("ms", "messages", "Redis commands", "CPU ms of the worker", "CPU ms of the client")


@dataclass(frozen=True)
class Side:
    """One way to run both.

    Attributes:
        worker: its process.
        runs: run it to its end, by its name.
        asked: how many messages its worker has published.
    """

    worker: Part
    runs: dict[str, Callable[[], Any]]
    asked: Callable[[], int]


def _measure(side: Side, name: str, count: int, store: "redis.Redis") -> tuple[float, ...]:
    """What one run takes: the row's numbers. Time is the median, the rest the mean."""
    # Neither question is among what is counted between them.
    before, commands = side.asked() + published(), _commands(store)
    cpu, own, seconds = _processor_nanoseconds(side.worker), time.process_time_ns(), []
    for _ in range(count):
        begun = time.perf_counter()
        side.runs[name]()
        seconds.append(time.perf_counter() - begun)
    own, cpu = time.process_time_ns() - own, _processor_nanoseconds(side.worker) - cpu
    commands, messages = _commands(store) - commands, published() - before + side.asked()
    took = (messages, commands, cpu / 1e6, own / 1e6)
    return statistics.median(seconds) * 1_000, *(one / count for one in took)


def _commands(store: "redis.Redis") -> int:
    stats: dict[str, Any] = store.info("commandstats")
    return sum(int(one["calls"]) for name, one in stats.items() if name != "cmdstat_info")


def _expect(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise AssertionError(f"{what} gave {found!r}")


def _bare(app: Any, worker: Part) -> Side:
    def run(canvas: Callable[[Any], Any], expected: int) -> None:
        _expect("the canvas", canvas(app).apply_async().get(_SECONDS), {"value": expected})

    return Side(
        worker,
        {
            "lone": lambda: run(bare_lone, 1),
            "chain": lambda: run(bare_chain, 5),
            "chord": lambda: run(bare_chord, 2 * sum(range(1, ITEMS + 1))),
        },
        lambda: int(app.tasks["asked"].apply_async().get(_SECONDS)),
    )


def _workflows(client: TaskClient, worker: Part) -> Side:
    def run(name: str, given: int, expected: int) -> None:
        found = client.run_workflow_sync(name, {"value": given}, timeout=_SECONDS)
        _expect(name, found, {"last": {"value": expected}})

    return Side(
        worker,
        {
            "lone": lambda: run("lone", 0, 1),
            "chain": lambda: run("chain", 0, 5),
            "chord": lambda: run("chord", 1, 2 * sum(range(1, ITEMS + 1))),
        },
        lambda: int(client.run_workflow_sync("asked", timeout=_SECONDS)["last"]),
    )


@contextmanager
def _sides(broker: str, threads: int) -> Iterator[tuple[Side, Side, "redis.Redis"]]:
    with Stack(broker if "://" in broker else None) as stack, ExitStack() as held:
        stack.start_redis()
        if broker == "redis":
            stack.start_redis_broker(persistent=False)
        if broker == "rabbitmq":
            stack.start_rabbitmq()
        stack.wait_until_ready()
        mine = {
            "BENCHMARK_BROKER": stack.broker_url,
            "BENCHMARK_RESULTS": stack.redis_url,
            "PYTHONPATH": str(Path.cwd()),
        }
        environment = stack.environment(**mine, WORKFLOW_MODULES=_MODULE, GENERAL_CONCURRENCY=str(threads))
        os.environ.update(mine)
        celery = [sys.executable, "-m", "celery", "-A", f"{_MODULE}:bare", "worker", "--loglevel=INFO"]
        options = ["--pool=threads", f"--concurrency={threads}", "--without-gossip", "--without-mingle"]
        bare = stack.start("bare", [*celery, *options, "--hostname=bare@%h"], environment)
        ours = stack.start("general", [sys.executable, "-P", "-m", "shared", "general"], environment)
        wait_for(lambda: stack.ready("general") and " ready." in bare.log.read_text(), 40, "the workers to be ready")
        engine = CeleryEngine(FleetSettings.load(environment), catalogue.load([_MODULE]), Limits())
        client = held.enter_context(TaskClient(engine, engine._fleet.workflows))
        app = make_bare()
        # Celery's results have their server told when they go, be it the last of them when it is gone.
        held.callback(setattr, app.backend.result_consumer, "_pubsub", None)
        yield _bare(app, bare), _workflows(client, ours), redis.Redis.from_url(stack.redis_url, decode_responses=True)


def _print(name: str, rounds: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    sys.stdout.write(f"\n{name:<24}{'bare':>9}{'workflow':>10}{'ratio':>8}  quartiles\n")
    for at, row in enumerate(ROWS):
        bare, ours = [one[at] for one, _ in rounds], [one[at] for _, one in rounds]
        low, middle, high = statistics.quantiles([b / a for a, b in zip(bare, ours, strict=True)], n=4)
        took = f"{statistics.median(bare):>9.2f}{statistics.median(ours):>10.2f}"
        sys.stdout.write(f"  {row:<22}{took}{middle:>8.2f}  {low:.2f} to {high:.2f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a workflow costs above bare Celery tasks.")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--count", type=int, default=30, help="runs of each in a round")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument(
        "--broker", default="redis", help="redis or rabbitmq: a private one; or an address, whose queues are deleted"
    )
    asked = parser.parse_args()
    with _sides(asked.broker, asked.threads) as (bare, ours, store):
        for name in bare.runs:
            _measure(bare, name, 5, store), _measure(ours, name, 5, store)  # warm
            rounds = [
                (_measure(bare, name, asked.count, store), _measure(ours, name, asked.count, store))
                for _ in range(asked.rounds)
            ]
            _print(name, rounds)
    if "://" in asked.broker:
        with Connection(asked.broker) as connection, connection.channel() as channel:
            for queue in (QUEUE, *WORKFLOW_QUEUES.values()):
                Queue(queue, channel=channel).delete()


if __name__ == "__main__":
    main()
