"""What each way to lay out the workers takes: `uv run python -m tests.benchmarks.consolidation`.

Users post documents and start pipelines, each the next when the last has ended, and every file waits for its tool. The
same goes through (a) a container per worker with prefork and 4 processes, (b) a container per worker with threads, (c)
the fast and the slow process, (d) one process for everything with room for as many files at once as (a), in turn,
several rounds of each. Counted over every process of the workers: proportional memory (PSS: shared pages are divided
among those who share them) and established connections, the most that were seen. A private RabbitMQ is the broker if it
is installed, else a private Valkey. The ratios are to (a) of the same round.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from sandbox.driver import Deployment, Driver, Run
from sandbox.servers import rabbitmq_program
from sandbox.stack import FOUR, Stack, StackError
from tests.benchmarks.world import documents

MEGABYTE = 1_048_576
_LOOK_SECONDS = 0.25
# Room for four files at once, as (a) has: of six slots, each of the two low queues may have two.
_ALL_6 = {"ALL_CONCURRENCY": "6"}
_PREFORK_4 = {"CELERY_POOL": "prefork", "CELERY_CONCURRENCY": "4"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Profiles that are deployed together, a container each."""

    name: str
    profiles: Sequence[str]
    settings: Mapping[str, str] = field(default_factory=dict)


LAYOUTS = (
    Layout("(a) per worker, prefork 4", FOUR, _PREFORK_4),
    Layout("(b) per worker, threads", FOUR, {"CELERY_CONCURRENCY": "4"}),
    Layout("(c) fast + slow", ("fast", "slow")),
    Layout("(d) all", ("all",), _ALL_6),
)


@dataclass(slots=True)
class Taken:
    """What one layout took: the most of each that was seen, and what it did meanwhile."""

    containers: int
    processes: int = 0
    megabytes: float = 0.0
    broker: int = 0
    http: int = 0
    state: int = 0
    files_per_second: float = 0.0

    def see(self, stack: Stack, profiles: Sequence[str]) -> None:
        """Look at every process of the workers."""
        ports = {
            "broker": urlsplit(stack.broker_url).port,
            "http": urlsplit(stack.backend_url).port,
            "state": stack.redis_port,
        }
        found: list[psutil.Process] = []
        for name in profiles:
            main = psutil.Process(stack.parts[name].pid)
            found += [main, *main.children(recursive=True)]
        held, remote = 0, []
        for process in found:
            with suppress(psutil.NoSuchProcess):
                held += process.memory_full_info().pss
                remote += [at.raddr.port for at in process.net_connections("tcp") if at.status == "ESTABLISHED"]
        self.processes = max(self.processes, len(found))
        self.megabytes = max(self.megabytes, held / MEGABYTE)
        for name, port in ports.items():
            setattr(self, name, max(getattr(self, name), remote.count(port or 0)))

    @property
    def connections(self) -> int:
        """To the broker, the backend and the state store."""
        return self.broker + self.http + self.state


def watch(taken: Taken, stack: Stack, profiles: Sequence[str], over: threading.Event) -> None:
    while not over.wait(_LOOK_SECONDS):
        taken.see(stack, profiles)


def pipeline(driver: Driver, files: Mapping[str, Path]) -> Run:
    """Start a pipeline over the folder of these files, which nobody has seen yet."""
    folder = Path(tempfile.mkdtemp(dir=next(iter(files.values())).parent))
    for name, path in files.items():
        (folder / name).write_text(f"{path.read_text()} For {folder}.")
    wanted = {"organization": "pipelines", "workflow_type": "ETL", "name": folder.name, "source_folder": str(folder)}
    return driver.start_pipeline(driver.control("POST", "setup/", wanted))


def use(stack: Stack, deployment: Deployment, files: Mapping[str, Path], requests: int) -> None:
    """Be a user: post these files, wait for the end, start a pipeline with them, and so on."""
    with Driver(stack) as driver:
        for number in range(requests):
            run = pipeline(driver, files) if number % 2 else driver.post(deployment, files)
            for _ in driver.watch(run, 600):
                pass
            if run.execution["status"] != "COMPLETED":
                raise StackError(f"the execution ended as {run.execution}")


def rate(stack: Stack, deployment: Deployment, asked: argparse.Namespace, requests: int) -> float:
    """Have all users at it; files per second."""
    with documents(asked.files) as files, ThreadPoolExecutor(asked.users) as users:
        begun = time.monotonic()
        for done in [users.submit(use, stack, deployment, files, requests) for _ in range(asked.users)]:
            done.result()
        files_in_all: int = asked.users * requests * asked.files
        return files_in_all / (time.monotonic() - begun)


def measure(layout: Layout, asked: argparse.Namespace) -> Taken:
    taken = Taken(containers=len(layout.profiles))
    with Stack() as stack:
        stack.start_redis()
        stack.start_rabbitmq() if rabbitmq_program() else stack.start_redis_broker()
        stack.start_backend(SANDBOX_TOOL_WAIT_SECONDS="0.3", SANDBOX_TOOL_WORKERS="8")
        stack.wait_until_ready(120)
        stack.start_workers(*layout.profiles, **layout.settings)
        stack.wait_until_ready()
        with Driver(stack) as driver:
            deployment = driver.deploy("benchmark", batches=1)
            driver.control("PUT", "switches", {"tool": "echo", "tool_seconds": asked.seconds})
        rate(stack, deployment, asked, 2)  # warm
        over = threading.Event()
        watching = threading.Thread(target=watch, args=(taken, stack, layout.profiles, over))
        watching.start()
        try:
            taken.files_per_second = rate(stack, deployment, asked, asked.requests)
        finally:
            over.set()
            watching.join()
    return taken


def middle(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def table(rounds: Sequence[Mapping[str, Taken]]) -> str:
    """As Markdown: the median of the rounds, with the least and the most."""
    first = LAYOUTS[0].name
    heads = "containers | processes | PSS, MB | of (a) | connections: broker, HTTP, state | of (a) | files/s | of (a)"
    lines = [f"| | {heads} |", "|---" * 9 + "|"]
    for layout in LAYOUTS:
        mine = [one[layout.name] for one in rounds]

        def share(name: str, rows: Sequence[Taken] = mine) -> str:
            pairs = zip(rows, (one[first] for one in rounds), strict=True)
            return f"{statistics.median(getattr(row, name) / getattr(base, name) for row, base in pairs):.0%}"

        kinds = ", ".join(middle([getattr(row, name) for row in mine]) for name in ("broker", "http", "state"))
        rate = f"{statistics.median(row.files_per_second for row in mine):.2f}"
        cells = [
            layout.name,
            str(mine[0].containers),
            middle([row.processes for row in mine]),
            middle([row.megabytes for row in mine]),
            share("megabytes"),
            kinds,
            share("connections"),
            rate,
            share("files_per_second"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What each way to lay out the workers takes.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=8, help="requests at once")
    parser.add_argument("--requests", type=int, default=6, help="of each user")
    parser.add_argument("--files", type=int, default=2, help="of each request")
    parser.add_argument("--seconds", type=float, default=1.0, help="that each file's tool waits")
    parser.add_argument("--json", type=Path, help="also write every number there")
    asked = parser.parse_args()
    rounds = []
    for number in range(asked.rounds):
        rounds.append({layout.name: measure(layout, asked) for layout in LAYOUTS})
        sys.stderr.write(f"round {number + 1} of {asked.rounds} at {time.strftime('%H:%M:%S')}\n")
    if asked.json:
        shown = [
            {name: {key: getattr(row, key) for key in Taken.__slots__} for name, row in one.items()} for one in rounds
        ]
        asked.json.write_text(json.dumps(shown, indent=1))
    sys.stdout.write(table(rounds) + "\n")


if __name__ == "__main__":
    main()
