"""Workflows in threads: time, ends that nobody planned, and what is left afterwards."""

import asyncio
import subprocess
import sys
import threading
import time
import tracemalloc
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.stack import wait_for
from shared.api_client import InternalAPIClient
from shared.errors import BackendUnavailableError
from shared.workflows.attempts import Limits
from shared.workflows.catalogue import Catalogue
from shared.workflows.client import TaskClient
from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow
from shared.workflows.engines.local import LocalEngine
from shared.workflows.errors import RunCancelledError, RunFailedError
from shared.workflows.shape import RunStatus

SHORT = 0.2 / 60
Body = Callable[[TaskContext], Any]


def no_backend() -> InternalAPIClient:
    raise AssertionError("no step of these asks the backend")


@pytest.fixture
def clients() -> Iterator[Callable[..., TaskClient]]:
    made: list[TaskClient] = []

    def make(*owners: Any, slots: int = 8) -> TaskClient:
        made.append(TaskClient(LocalEngine(Limits(), no_backend, slots), Catalogue(owners)))
        return made[-1]

    yield make
    for client in made:
        client.close()


def one(body: Body, name: str = "one", *, minutes: float = 1, **options: Any) -> Any:
    class One(BaseWorkflow):
        @task(name="step", **options)
        def step(self, _input_data: Any, ctx: TaskContext) -> Any:
            return body(ctx)

    return workflow(name=name, timeout_minutes=minutes)(One)


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()],
    ids=lambda e: type(e).__name__,
)
def test_a_step_that_would_end_its_thread_fails_at_once(clients: Any, error: BaseException) -> None:
    def leave(_ctx: TaskContext) -> Any:
        raise error

    client = clients(one(leave, retries=3), slots=1)
    for _ in range(3):  # the one thread is still there
        with pytest.raises(RunFailedError, match=f"failed at attempt 1: it raised {type(error).__name__}"):
            client.run_workflow_sync("one", timeout=5)


def test_an_attempt_over_its_time_is_tried_again_and_its_answer_not_heard(clients: Any) -> None:
    ended = threading.Event()

    def hang(ctx: TaskContext) -> Any:
        if ctx.attempt == 1:
            while not ctx.cancelled:
                time.sleep(0.01)
            ended.set()
            return "late"
        return "in time"

    client = clients(one(hang, timeout_minutes=SHORT, retries=1, backoff_seconds=0))
    assert client.run_workflow_sync("one", timeout=10) == {"step": "in time"}
    assert ended.wait(2)


def test_nothing_begins_after_the_deadline_of_a_run(clients: Any) -> None:
    """What waits for a free slot has failed by then, and is not done behind the back of on_failure."""
    begun: list[str] = []
    free, told = threading.Event(), threading.Event()

    class Over(BaseWorkflow):
        @task(name="first")
        def first(self, _input_data: Any, _ctx: TaskContext) -> None:
            begun.append("first")
            free.wait(10)

        @task(name="second")
        def second(self, _input_data: Any, _ctx: TaskContext) -> None:
            begun.append("second")

        def on_failure(self, _input_data: Any, ctx: TaskContext) -> None:
            begun.append("on_failure")
            assert {one.reason for one in ctx.failures} == {"the run did not end within 0.2 s"}
            told.set()

    client = clients(workflow(name="over", timeout_minutes=SHORT)(Over), slots=1)
    run_id = client.start_workflow("over")
    wait_for(lambda: client.status(run_id).steps["second"].ended is not None, 5, "the deadline")
    free.set()
    with pytest.raises(RunFailedError):
        client.result(run_id, 10)
    assert told.is_set()
    assert begun == ["first", "on_failure"]
    assert {step.state for step in client.status(run_id).steps.values()} == {"failed", "succeeded"}


def test_a_condition_that_cannot_be_asked_does_not_outlive_the_run(clients: Any) -> None:
    def away(_ctx: TaskContext) -> bool:
        raise BackendUnavailableError("away")

    client = clients(one(lambda _ctx: 1, minutes=SHORT, when=away))
    with pytest.raises(RunFailedError, match=r"the run did not end within 0\.2 s"):
        client.run_workflow_sync("one", timeout=10)


def test_a_condition_that_raises_fails_its_step(clients: Any) -> None:
    client = clients(one(lambda _ctx: 1, when=lambda _ctx: 1 / 0))
    with pytest.raises(RunFailedError, match="step step failed: ZeroDivisionError: division by zero"):
        client.run_workflow_sync("one", timeout=10)


def test_who_waits_is_let_go_in_time_though_the_run_tells_much(clients: Any) -> None:
    def talk(ctx: TaskContext) -> None:
        for at in range(400):
            if ctx.cancelled:
                return
            ctx.progress(at)
            time.sleep(0.01)

    client = clients(one(talk))
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"has not ended within 0.5 s; it goes on"):
        asyncio.run(client.run_workflow("one", timeout=0.5))
    assert time.monotonic() - begun < 2


def test_a_close_cancels_what_runs_and_does_not_wait(clients: Any) -> None:
    begun, free = threading.Event(), threading.Event()

    def hang(_ctx: TaskContext) -> None:
        begun.set()
        free.wait(10)

    client = clients(one(hang))
    run_id = client.start_workflow("one")
    assert begun.wait(5)
    at = time.monotonic()
    client.close()
    assert time.monotonic() - at < 0.5
    with pytest.raises(RunCancelledError):
        client.result(run_id, 1)
    free.set()


def test_thousands_of_runs_leave_no_threads_and_bounded_memory(clients: Any) -> None:
    client = clients(one(lambda _ctx: "x" * 1_000))

    def many(count: int) -> None:
        for _ in range(count):
            client.result(client.start_workflow("one"), 10)

    many(1_200)
    before = threading.active_count()
    tracemalloc.start()
    many(1_500)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Those that are kept are exchanged: what is new is as much as what was forgotten.
    assert len(client.engine._runs) <= 1_001
    assert grown < 1_001 * 20_000
    wait_for(lambda: threading.active_count() <= before + 1, 5, "the threads of the runs")


PROGRAM = """
import os, signal, threading, time
from shared.workflows.attempts import Limits
from shared.workflows.catalogue import Catalogue
from shared.workflows.client import TaskClient
from shared.workflows.declaration import BaseWorkflow, task, workflow
from shared.workflows.engines.local import make

begun = threading.Event()

@workflow(name="hangs")
class Hangs(BaseWorkflow):
    @task(name="hang")
    def hang(self, input_data, ctx):
        begun.set()
        time.sleep(600)

known = Catalogue([Hangs])
client = TaskClient(make(known, Limits()), known)
run_id = client.start_workflow("hangs")
begun.wait()
{end}
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("", ""),
        ("client.close()", ""),
        ("os.kill(os.getpid(), signal.SIGINT)\nclient.result(run_id)", "KeyboardInterrupt"),
    ],
    ids=["end", "close", "interrupt"],
)
def test_a_hung_step_does_not_hold_the_process(end: str, said: str) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{end}", end)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert said in done.stderr
    assert (done.returncode == 0) is not bool(said)
    assert time.monotonic() - begun < 30


def test_a_cancel_from_within_is_seen(clients: Any) -> None:
    seen = threading.Event()

    def cancel(ctx: TaskContext) -> None:
        client.cancel(ctx.run_id)
        if ctx.cancelled:
            seen.set()

    client = clients(one(cancel))
    run_id = client.start_workflow("one")
    with pytest.raises(RunCancelledError):
        client.result(run_id, 5)
    assert seen.wait(2)
    assert client.status(run_id).status is RunStatus.CANCELLED


def test_the_longest_chain_that_is_not_run_ends(clients: Any) -> None:
    def fail(_self: Any, _input_data: Any, _ctx: TaskContext) -> None:
        raise RuntimeError("no")

    body: dict[str, Any] = {"s0": task(name="s0")(fail)}
    for at in range(1, 200):
        body[f"s{at}"] = task(name=f"s{at}", parents=[f"s{at - 1}"])(lambda _self, _input_data, _ctx: None)
    chain = workflow(name="chain")(types.new_class("C", (BaseWorkflow,), exec_body=lambda names: names.update(body)))
    with pytest.raises(RunFailedError):
        clients(chain).run_workflow_sync("chain", timeout=10)
