"""The stack that a part of the benchmark runs on, and how its processes are weighed."""

import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis
from celery import Celery

from sandbox.driver import Driver, Run
from sandbox.keeper import kill_group
from sandbox.stack import Part, Stack, StackError, wait_for


@dataclass(frozen=True, slots=True)
class How:
    """How long and on what to measure.

    Attributes:
        quick: few rounds.
        broker: `rabbitmq` or `redis`: a private node of it.
    """

    quick: bool
    broker: str

    @property
    def broker_name(self) -> str:
        return {"rabbitmq": "RabbitMQ", "redis": "Valkey as the broker"}[self.broker]

    def either(self, quick: int, full: int) -> int:
        return quick if self.quick else full


@contextmanager
def servers(how: How) -> Iterator[Stack]:
    """State store and broker, which listen."""
    with Stack() as stack:
        stack.start_redis()
        stack.start_rabbitmq() if how.broker == "rabbitmq" else stack.start_redis_broker(persistent=False)
        stack.wait_until_ready(120)
        yield stack


@dataclass(frozen=True, slots=True)
class Weighed:
    """A process with its children: how many there are, resident and proportional memory in MB (10^6 bytes)."""

    processes: int
    resident: float
    proportional: float


def _tree(part: Part) -> list[psutil.Process]:
    main = psutil.Process(part.pid)
    return [main, *main.children(recursive=True)]


def weigh(part: Part) -> Weighed:
    """What its processes hold now. Resident memory counts shared pages once for each process, proportional once."""
    held = []
    for process in _tree(part):
        with suppress(psutil.NoSuchProcess):
            held.append(process.memory_full_info())
    return Weighed(len(held), sum(one.rss for one in held) / 1e6, sum(one.pss for one in held) / 1e6)


def processor_seconds(part: Part) -> float:
    """Processor time of its processes since they began, by the kernel's count (10 ms fine)."""
    taken = 0.0
    for process in _tree(part):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            taken += times.user + times.system
    return taken


@contextmanager
def documents(count: int) -> Iterator[dict[str, Path]]:
    """Small text files, no two alike."""
    with tempfile.TemporaryDirectory() as folder:
        found = {f"note-{number}.txt": Path(folder) / f"note-{number}.txt" for number in range(count)}
        for number, path in enumerate(found.values()):
            path.write_text(f"This is note number {number}.")
        yield found


class Swift:
    """A stack whose backend takes almost no time (`swift_backend.py`), and who sends executions to it.

    Attributes:
        stack: everything that runs.
        ended: executions that were waited for so far.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.ended = 0
        self._http = httpx.Client(base_url=stack.backend_url, timeout=900, trust_env=False)
        self._celery = publisher(stack)

    def close(self) -> None:
        self._http.close()
        self._celery.close()

    def set(self, *, tool_seconds: float, batches: int = 1) -> None:
        """How long the tool of each file takes, and into how many batches an execution goes."""
        self._http.put("/swift/settings", json={"tool_seconds": tool_seconds, "batches": batches}).raise_for_status()

    def send(self, files: int, execution_id: str | None = None) -> float:
        """Send an execution, as the backend does; the clock's seconds just before."""
        names = [f"note-{number}.txt" for number in range(files)]
        hashes = {name: _file(name, number) for number, name in enumerate(names)}
        args = ["swift", str(uuid.uuid4()), execution_id or str(uuid.uuid4()), hashes]
        before = time.monotonic()
        start(self._celery, args, str(uuid.uuid4()))
        return before

    def wait(self, executions: int) -> float:
        """Until so many more have ended; the clock's seconds at which the last of them did.

        Raises:
            StackError: a part ended instead, or an execution did not complete with all of its files.
        """
        self.ended += executions
        answer = self._http.get(f"/swift/ended/{self.ended}").raise_for_status().json()
        self.stack.check()
        if answer["failed"]:
            raise StackError(f"{answer['failed']} of {answer['ended']} executions did not complete with all files")
        return float(answer["at"])

    def forget(self) -> None:
        """Have the backend forget the executions that it has seen."""
        self._http.put("/swift/forget").raise_for_status()

    def executions(self) -> dict[str, dict[str, Any]]:
        """What the backend has seen of each execution: `swift_backend.py`."""
        found: dict[str, dict[str, Any]] = self._http.get("/swift/executions").json()
        return found

    def requests(self) -> dict[str, int]:
        """How many of which requests there were."""
        found: dict[str, int] = self._http.get("/swift/requests").json()["requests"]
        return found


def publisher(stack: Stack) -> Celery:
    """Who sends messages as the backend does."""
    app = Celery(broker=stack.broker_url, set_as_current=False, fixups=[])
    app.conf.broker_transport_options = {"confirm_publish": True} if stack.broker_url.startswith("amqp") else {}
    return app


def start(app: Celery, args: Sequence[object], pipeline_id: str) -> None:
    """Send the message that starts an API execution (contract section 1)."""
    app.send_task("async_execute_bin", args=args, kwargs={"pipeline_id": pipeline_id}, queue="celery_api_deployments")


def _file(name: str, number: int) -> dict[str, object]:
    digest = f"{number:064x}"
    place = {"file_path": f"swift/{name}", "file_name": name, "file_hash": digest, "provider_file_uuid": digest}
    return {**place, "source_connection_type": "API", "file_size": 27, "mime_type": "text/plain", "file_number": number}


def start_swift(stack: Stack) -> None:
    """Start the swift backend, in the place of the reference backend."""
    ready, port = stack.folder / "backend.ready", stack.backend_url.rpartition(":")[2]
    stack.start("backend", [sys.executable, "-P", "-m", "tests.benchmarks.swift_backend", port, str(ready)])
    wait_for(ready.exists, 20, "the swift backend")


@contextmanager
def swift(how: How, *profiles: str, **settings: str) -> Iterator[Swift]:
    """Servers, the swift backend, and these workers, which consume."""
    with servers(how) as stack:
        start_swift(stack)
        stack.start_workers(*profiles, **settings)
        stack.wait_until_ready()
        with closing(Swift(stack)) as world:
            yield world


def kill(stack: Stack, name: str) -> None:
    """Kill a part with all that it started, and wait until it is dead."""
    stack.kill(name, signal.SIGKILL)
    wait_for(lambda: not stack.alive(name), 60, f"{name} to die")
    kill_group(stack.parts[name].pid)


def await_completed(driver: Driver, run: Run) -> None:
    """Watch an execution to its end.

    Raises:
        StackError: it is not COMPLETED then with all of its files.
    """
    for _ in driver.watch(run):
        pass
    check_completed(driver, run.execution_id)


def check_completed(driver: Driver, execution_id: str) -> None:
    """Raise StackError unless that execution is COMPLETED with all of its files."""
    found = driver.control("GET", f"executions/{execution_id}/")["execution"]
    if found["status"] != "COMPLETED" or found["successful_files"] != found["total_files"]:
        raise StackError(f"an execution ended as {found}")


class Reference:
    """A stack with the reference backend, whose tools only wait, and a deployment there.

    Attributes:
        stack: everything that runs.
        driver: who posts documents.
        deployment: where to.
    """

    def __init__(self, stack: Stack, driver: Driver, files: Mapping[str, Path]) -> None:
        self.stack, self.driver, self._files = stack, driver, files
        self.deployment = driver.deploy("bench", batches=1)
        self._celery, self._redis = publisher(stack), redis.Redis.from_url(stack.redis_url)
        self.set(tool_seconds=0)

    def close(self) -> None:
        self._celery.close()
        self._redis.close()

    def set(self, *, tool_seconds: float, batches: int = 1) -> None:
        """How long the tool of each file takes, and into how many batches an execution goes."""
        self.driver.deploy("bench", batches=batches)
        self.driver.control("PUT", "switches", {"tool": "echo", "tool_seconds": tool_seconds})

    def post(self, count: int) -> Run:
        """Post so many documents as one execution."""
        chosen = dict(list(self._files.items())[:count])
        for path in chosen.values():
            path.write_text(f"{uuid.uuid4()}")
        return self.driver.post(self.deployment, chosen)

    def one(self) -> float:
        """Seconds from the message of one execution with one file until its state is cleared, just after its end."""
        name, path = next(iter(self._files.items()))
        path.write_text(f"{uuid.uuid4()}")
        staged = self.driver.stage(self.deployment, name, path)
        execution, ours = staged["execution_id"], self.deployment
        args = [ours.organization_id, staged["workflow_id"], execution, {name: staged["file"]}]
        before = time.monotonic()
        start(self._celery, args, str(uuid.uuid4()))
        while not self._redis.exists(f"workers:execution:{execution}:ended"):
            time.sleep(0.001)
            if time.monotonic() > before + 60:
                raise StackError(f"execution {execution} has not ended within 60 s")
        seconds = time.monotonic() - before
        check_completed(self.driver, execution)
        return seconds

    def unended(self) -> int:
        """Executions that have been started and whose state is not cleared yet."""
        found: int = self._redis.zcard("workers:executions")
        return found

    def await_cleared(self) -> None:
        """Until the state of every execution is cleared: nothing more is asked for any of them."""
        wait_for(lambda: not self.unended(), 30, "the executions to be cleared")

    def forget_requests(self) -> None:
        """Count requests from here."""
        self.driver.control("DELETE", "stats")

    def requests(self) -> dict[str, int]:
        """How many of which internal requests there were, since they were last forgotten."""
        found: dict[str, int] = self.driver.control("GET", "stats")["requests"]
        return found


@contextmanager
def reference(how: How, *profiles: str, files: int = 1, **settings: str) -> Iterator[Reference]:
    """Servers, the reference backend with room for 64 tools, and these workers, which consume."""
    with servers(how) as stack, documents(files) as found:
        stack.start_backend(SANDBOX_TOOL_WORKERS="64", SANDBOX_THREADS="80")
        stack.wait_until_ready()
        stack.start_workers(*profiles, **settings)
        stack.wait_until_ready()
        with Driver(stack) as driver, closing(Reference(stack, driver, found)) as world:
            yield world
