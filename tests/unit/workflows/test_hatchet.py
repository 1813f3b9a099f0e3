"""The engine that runs workflows on Hatchet, as far as that can be seen without one: its SDK runs our tasks.

`Board` answers the SDK's own gRPC calls and goes by Hatchet's rules, as its engine's source has them: what depends on
a failure is cancelled, the rest goes on, and an attempt is repeated unless it says that it must not be. What a real
engine does besides is for tests/integration/test_hatchet_engine.py.
"""

# ruff: noqa: ARG002 # steps are given what all steps are given

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FunctionType
from typing import Any
from uuid import uuid4

import grpc
import hatchet_sdk as sdk
import pytest
import redis
from google.protobuf import any_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status
from hatchet_sdk.config import ClientTLSConfig, TenacityConfig
from hatchet_sdk.contracts import dispatcher_pb2, dispatcher_pb2_grpc, workflows_pb2, workflows_pb2_grpc
from hatchet_sdk.contracts.v1 import workflows_pb2 as v1
from hatchet_sdk.contracts.v1 import workflows_pb2_grpc as v1_grpc
from hatchet_sdk.runnables.contextvars import ctx_step_run_id, ctx_workflow_run_id
from hatchet_sdk.worker.runner.runner import Runner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.errors import TransientError
from shared.variables import SettingsError
from shared.workflows.attempts import Limits
from shared.workflows.catalogue import Catalogue
from shared.workflows.client import TaskClient
from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, Declaration, task, workflow
from shared.workflows.engines.hatchet import HatchetEngine, make
from shared.workflows.engines.hatchet_tasks import Given
from shared.workflows.engines.local import LocalEngine
from shared.workflows.engines.shelf import Shelf
from shared.workflows.errors import RunCancelledError, RunFailedError, RunKeyError, UnknownRunError, WorkflowError
from shared.workflows.shape import ON_FAILURE, RunStatus, StepState
from shared.workflows.views import RunView

ROOT = Path(__file__).resolve().parents[3]
KIBI = 1024


def token(address: str = "127.0.0.1:9", api: str = "127.0.0.1:9") -> str:
    claims = {"sub": str(uuid4()), "server_url": f"http://{api}", "grpc_broadcast_address": address}
    return f"eyJ.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


def client_of_hatchet(address: str = "127.0.0.1:9", api: str = "127.0.0.1:9") -> sdk.Hatchet:
    none = ClientTLSConfig(strategy="none")
    once = TenacityConfig(max_attempts=1)
    return sdk.Hatchet(config=sdk.ClientConfig(token=token(address, api), tls_config=none, tenacity=once))


def unused() -> Any:
    raise AssertionError("small outputs need no state store, and no step here asks for the backend")


def engine_of(
    *owners: type[BaseWorkflow],
    address: str = "127.0.0.1:9",
    api: str = "127.0.0.1:9",
    shelf: Shelf | None = None,
    items: int = 10_000,
) -> HatchetEngine:
    limits = Limits(output=8 * KIBI * KIBI, items=items)
    return HatchetEngine(client_of_hatchet(address, api), Catalogue(owners), limits, shelf or Shelf(60, unused), unused)


def tasks_of(engine: HatchetEngine) -> dict[str, sdk.Task[Given, dict[str, Any]]]:
    return {one.name: one for made in engine.registered for one in made.tasks}


def told(value: Any = None, **more: Any) -> Given:
    return Given(input={"output": json.dumps(value)}, until=time.time() + 600, **more)


def gave(value: Any) -> dict[str, Any]:
    return {"state": "succeeded", "attempt": 1, "output": json.dumps(value)}


# Generated, and some of it is missing from their stubs.
TRIGGER: Any = workflows_pb2_grpc
ADMIN: Any = v1_grpc
DISPATCHER: Any = dispatcher_pb2_grpc


class Board(TRIGGER.WorkflowServiceServicer, ADMIN.AdminServiceServicer, DISPATCHER.DispatcherServicer):  # type: ignore[misc] # for that reason
    """Hatchet, to its SDK. Runs are carried out as they are started, each task through its wrapper and back as JSON."""

    def __init__(self) -> None:
        self.workflows: dict[str, Any] = {}
        self.runs: dict[str, v1.GetRunDetailsResponse] = {}
        self.keys: dict[str, str] = {}
        self.children: dict[tuple[str, str], str] = {}
        self.requests: list[Any] = []
        self.actions: list[Any] = []
        self.ends: dict[str, Any] = {}
        self.held = threading.Event()
        self.held.set()

    def serve(self, engine: HatchetEngine) -> TaskClient:
        self.workflows |= {made.name: made for made in engine.registered}
        return TaskClient(engine, engine.workflows)

    # The calls.

    def TriggerWorkflow(self, request: Any, context: Any) -> Any:  # noqa: N802 # gRPC's name
        key = json.loads(request.input)["key"]
        before = self.keys.setdefault(key, run_id := str(uuid4()))  # whichever workflow has it
        if before != run_id:
            detail = any_pb2.Any()
            detail.Pack(v1.IdempotencyCollisionError(existing_run_external_id=before))
            status = status_pb2.Status(
                code=grpc.StatusCode.ALREADY_EXISTS.value[0], message="idempotency key collision", details=[detail]
            )
            context.abort_with_status(rpc_status.to_status(status))
        self._begin(run_id, request)
        return workflows_pb2.TriggerWorkflowResponse(workflow_run_id=run_id)

    def BulkTriggerWorkflow(self, request: Any, _context: Any) -> Any:  # noqa: N802
        ids = []
        for one in request.workflows:
            place = (one.parent_task_run_external_id, one.child_key)
            known = self.children.setdefault(place, run_id := str(uuid4()))
            if known == run_id:
                self._begin(run_id, one)
            ids.append(known)
        return workflows_pb2.BulkTriggerWorkflowResponse(workflow_run_ids=ids)

    def PutWorkflow(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        return v1.CreateWorkflowVersionResponse()

    def GetVersion(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return dispatcher_pb2.GetVersionResponse(version="v0.111.0")

    def Register(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return dispatcher_pb2.WorkerRegisterResponse(worker_id=str(uuid4()))

    def Heartbeat(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return dispatcher_pb2.HeartbeatResponse()

    def ListenV2(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        yield from self.actions
        self.held.clear()
        self.held.wait(60)

    def SendStepActionEvent(self, request: Any, _context: Any) -> Any:  # noqa: N802
        kinds = dispatcher_pb2.StepActionEventType
        if request.event_type in {kinds.STEP_EVENT_TYPE_COMPLETED, kinds.STEP_EVENT_TYPE_FAILED}:
            # That it has started comes by a thread of its own, and may come later.
            self.ends[request.task_run_external_id] = request
        return dispatcher_pb2.ActionEventResponse()

    def GetRunDetails(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.external_id not in self.runs:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such run")
        return self.runs[request.external_id]

    def SubscribeToWorkflowRuns(self, requests: Any, _context: Any) -> Any:  # noqa: N802
        for request in requests:
            while not (run := self.runs[request.workflow_run_id]).done:
                time.sleep(0.01)
            results = [
                dispatcher_pb2.StepRunResult(
                    task_name=name, error=one.error or None, output=one.output.decode() or None
                )
                for name, one in run.task_runs.items()
            ]
            yield dispatcher_pb2.WorkflowRunEvent(workflow_run_id=request.workflow_run_id, results=results)

    # The rules.

    def _begin(self, run_id: str, request: Any) -> None:
        self.requests.append(request)
        run = v1.GetRunDetailsResponse(
            input=request.input.encode(),
            additional_metadata=request.additional_metadata.encode(),
            status=v1.RunStatus.RUNNING,
        )
        self.runs[run_id] = run
        threading.Thread(target=self._carry_out, args=(run_id, run, self.workflows[request.name]), daemon=True).start()

    def _carry_out(self, run_id: str, run: Any, made: Any) -> None:
        assert self.held.wait(30)
        proto = made.to_proto()
        tasks = {one.name: one for one in made.tasks}
        left = [tasks[one.readable_id] for one in proto.tasks]
        while left:
            one = next(
                one for one in left if not {parent.name for parent in one.parents} & {name.name for name in left}
            )
            left.remove(one)
            parents = {parent.name: run.task_runs[parent.name] for parent in one.parents}
            if any(parent.status != v1.RunStatus.COMPLETED for parent in parents.values()):
                run.task_runs[one.name].status = v1.RunStatus.CANCELLED
            else:
                self._attempts(run_id, run, one, {name: json.loads(parent.output) for name, parent in parents.items()})
        failed = any(one.status == v1.RunStatus.FAILED for one in run.task_runs.values())
        if failed and proto.HasField("on_failure_task"):
            self._attempts(run_id, run, tasks[proto.on_failure_task.readable_id], {})
        run.status, run.done = v1.RunStatus.FAILED if failed else v1.RunStatus.COMPLETED, True

    def _attempts(self, run_id: str, run: Any, one: Any, parents: dict[str, Any]) -> None:
        errors = {name: other.error for name, other in run.task_runs.items() if other.error}
        ends = run.task_runs[one.name]
        for retry in range(one.retries + 1):
            ends.status = v1.RunStatus.RUNNING
            try:
                output = attempt(one, json.loads(run.input), parents, retry, run_id, errors)
            except Exception as error:  # noqa: BLE001 # as Hatchet's runner does
                ends.error = sdk.TaskRunError.from_exception(error, run_id).serialize(include_metadata=True)
                if isinstance(error, sdk.NonRetryableException) or retry == one.retries:
                    ends.status = v1.RunStatus.FAILED
                    return
                continue
            ends.output, ends.error, ends.status = output.encode(), "", v1.RunStatus.COMPLETED
            return


@cache
def loop() -> asyncio.AbstractEventLoop:
    """One for all tasks that wait, as a worker has it: what the SDK listens with belongs to a loop."""
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, daemon=True).start()
    return made


async def within(one: Any, ctx: sdk.Context) -> Any:
    """As Hatchet's runner calls it: what it starts knows whose child it is."""
    ctx_step_run_id.set(ctx.task_run_id)
    ctx_workflow_run_id.set(ctx.workflow_run_id)
    return await one.aio_call(ctx)


def attempt(  # noqa: PLR0913, PLR0917 # what Hatchet tells a worker
    one: Any, told: Any, parents: dict[str, Any], retry: int, run_id: str, errors: dict[str, str]
) -> str:
    """One attempt, as Hatchet's worker makes it; what it gives as that sends it."""
    ctx = one._create_mock_context(Given(**told), {}, parents, retry)
    ctx._action.workflow_run_id = run_id
    ctx._action.step_run_id = f"{run_id}/{one.name}"
    ctx._data.step_run_errors = errors
    if one._is_async_function:
        output = asyncio.run_coroutine_threadsafe(within(one, ctx), loop()).result(60)
    else:
        output = one.call(ctx)
    text = Runner.serialize_output(None, one._validators.step_output, output)  # type: ignore[arg-type] # it uses none
    assert text is not None
    return text


@pytest.fixture
def board() -> Iterator[tuple[Board, str]]:
    found = Board()
    server = grpc.server(ThreadPoolExecutor(16))
    TRIGGER.add_WorkflowServiceServicer_to_server(found, server)
    ADMIN.add_AdminServiceServicer_to_server(found, server)
    DISPATCHER.add_DispatcherServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found, f"127.0.0.1:{port}"
    found.held.set()
    server.stop(None).wait()


class Page(BaseModel):
    number: int
    words: list[str]


class Book(BaseModel):
    pages: list[Page]


@workflow(name="Reading", priority="low")
class Reading(BaseWorkflow):
    """A branch that may be left out, a list, a join, models, and a last word."""

    @task(name="Open", timeout_minutes=0.001, priority="high")
    def open(self, input_data: dict[str, Any], ctx: TaskContext) -> Book:
        texts = input_data["texts"]
        return Book(pages=[Page(number=at, words=text.split()) for at, text in enumerate(texts)])

    @task(name="count", parents=["Open"], map_over="pages", retries=2, backoff_seconds=0)
    def count(self, page: Page, ctx: TaskContext) -> int:
        if "fails-once" in page.words and ctx.attempt == 1:
            raise RuntimeError("once")
        if "fails" in page.words:
            raise WorkflowError(f"page {page.number} cannot be counted")
        assert ctx.index == page.number
        assert ctx.key == f"{ctx.run_id}/count/{page.number}"
        assert ctx.workflow_input["texts"][page.number].split() == page.words
        assert len(ctx.task_output("Open").pages) == len(ctx.workflow_input["texts"])
        return len(page.words)

    @task(name="praise", parents=["Open"], when=lambda ctx: bool(ctx.workflow_input.get("praise")))
    def praise(self, input_data: Any, ctx: TaskContext) -> str:
        return "well done"

    @task(name="say", parents=["count", "praise"])
    def say(self, input_data: Any, ctx: TaskContext) -> dict[str, Any]:
        return {"words": sum(ctx.task_output("count")), "praise": ctx.task_output("praise"), "org": ctx.organization_id}

    @task(name="aside")
    def aside(self, input_data: Any, ctx: TaskContext) -> str:
        return "\ud800 and \x00 are text"

    def on_failure(self, input_data: Any, ctx: TaskContext) -> list[str]:
        return [str(failure) for failure in ctx.failures]


@workflow(name="large")
class Large(BaseWorkflow):
    @task(name="write")
    def write(self, size: int, ctx: TaskContext) -> str:
        return "é" * (size // 2)

    @task(name="read", parents=["write"])
    def read(self, size: int, ctx: TaskContext) -> int:
        return len(ctx.task_output("write"))


class TroubleError(Exception):
    """Another attempt may end otherwise."""


@workflow(name="troubled")
class Troubled(BaseWorkflow):
    seen: list[int] = []  # noqa: RUF012 # what attempts there were, whoever made them

    @task(name="try", retries=2, backoff_seconds=4)
    def try_it(self, error: str, ctx: TaskContext) -> int:
        self.seen.append(ctx.attempt)
        if error == "passing" and len(self.seen) < 3:
            raise TransientError("away")
        if error == "wrong":
            return "no number"  # type: ignore[return-value]
        if error == "trouble":
            raise TroubleError("as asked")
        return ctx.attempt


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    Troubled.seen.clear()


@pytest.fixture
def shelf(redis_url: str) -> Shelf:
    return Shelf(60, lambda: redis.Redis.from_url(redis_url, decode_responses=True))


# (a) What tasks do.


def test_a_step_gives_an_envelope_and_takes_those_of_its_parents() -> None:
    tasks = tasks_of(engine_of(Reading))
    opened = tasks["open"].mock_run(told({"texts": ["a b"]}))
    assert opened == {"state": "succeeded", "attempt": 1, "output": '{"pages": [{"number": 0, "words": ["a", "b"]}]}'}
    said = tasks["say"].mock_run(
        told(organization_id="org"), parent_outputs={"count": gave([2, 3]), "praise": {"state": "skipped"}}
    )
    assert json.loads(said["output"]) == {"words": 5, "praise": None, "org": "org"}


@pytest.mark.parametrize(
    ("states", "becomes"),
    [
        ({"count": "skipped", "praise": "skipped"}, "skipped"),
        ({"count": "succeeded", "praise": "not_run"}, "not_run"),
        ({"count": "succeeded"}, "not_run"),  # the other has given nothing
        ({}, "not_run"),
    ],
)
def test_a_join_goes_by_the_rules_of_a_run(states: dict[str, str], becomes: str) -> None:
    parents = {name: gave([1]) | {"state": state} for name, state in states.items()}
    assert tasks_of(engine_of(Reading))["say"].mock_run(told(), parent_outputs=parents) == {"state": becomes}


def test_what_hatchet_has_skipped_itself_is_skipped() -> None:
    parents = {"count": gave([1]), "praise": {"skipped": True}}
    assert tasks_of(engine_of(Reading))["say"].mock_run(told(), parent_outputs=parents)["state"] == "succeeded"


@pytest.mark.parametrize(("wanted", "state"), [(True, "succeeded"), (False, "skipped")])
def test_a_condition_is_asked_with_the_input(wanted: bool, state: str) -> None:
    praise = tasks_of(engine_of(Reading))["praise"]
    assert praise.mock_run(told({"praise": wanted}), parent_outputs={"open": gave({"pages": []})})["state"] == state


@pytest.mark.parametrize("retry", [0, 2])
def test_a_failure_asks_for_our_wait_and_hatchet_counts_the_attempts(retry: int) -> None:
    with pytest.raises(sdk.RetryAfterException, match=f"^attempt {retry + 1}: TroubleError: as asked$") as raised:
        tasks_of(engine_of(Troubled))["try"].mock_run(told("trouble"), retry_count=retry)
    assert 0 <= raised.value.after.total_seconds() <= 4 * 2**retry
    assert raised.value.__cause__ is None


def test_what_would_end_the_same_way_is_not_tried_again() -> None:
    tried = tasks_of(engine_of(Troubled))["try"]
    with pytest.raises(sdk.NonRetryableException, match="attempt 1: the output of step try is not int"):
        tried.mock_run(told("wrong"))
    with pytest.raises(sdk.NonRetryableException, match="attempt 1: the input of step try is not str"):
        tried.mock_run(told(7))


def test_what_passes_is_waited_for_as_the_same_attempt() -> None:
    assert tasks_of(engine_of(Troubled))["try"].mock_run(told("passing"))["output"] == "1"
    assert Troubled.seen == [1, 1, 1]


def test_nobody_waits_for_a_step_whose_run_was_cancelled() -> None:
    one = tasks_of(engine_of(Troubled))["try"]
    ctx: Any = one._create_mock_context(told("passing"))
    ctx._set_cancellation_flag()
    with pytest.raises(sdk.RetryAfterException, match="attempt 1: away"):
        one.call(ctx)
    assert Troubled.seen == [1]


def test_an_attempt_ends_with_its_run() -> None:
    late = told("").model_copy(update={"until": time.time() - 1})
    with pytest.raises(sdk.RetryAfterException, match="attempt 1: step try ran out of time"):
        tasks_of(engine_of(Troubled))["try"].mock_run(late)
    assert Troubled.seen == []
    assert tasks_of(engine_of(Reading))["on_failure-on-failure"].mock_run(late)["state"] == "succeeded"


def test_a_step_that_takes_too_long_has_failed() -> None:
    @workflow(name="slow")
    class Slow(BaseWorkflow):
        @task(name="sleep", timeout_minutes=0.001)
        def sleep(self, input_data: Any, ctx: TaskContext) -> None:
            time.sleep(0.1)

    with pytest.raises(sdk.RetryAfterException, match="attempt 1: step sleep ran out of time"):
        tasks_of(engine_of(Slow))["sleep"].mock_run(told())


def test_a_condition_that_fails_is_no_reason_to_try_again() -> None:
    @workflow(name="asked")
    class Asked(BaseWorkflow):
        @task(name="never", retries=3, when=lambda ctx: ctx.workflow_input["missing"])
        def never(self, input_data: Any, ctx: TaskContext) -> None: ...

    with pytest.raises(sdk.NonRetryableException, match="missing"):
        tasks_of(engine_of(Asked))["never"].mock_run(told({}))


def test_a_list_that_is_none_or_too_long_is_refused() -> None:
    count = tasks_of(engine_of(Reading, items=2))["count"]
    for pages, why in ((3, "is no list"), ([1, 2, 3], "3 items, and 2 may be")):
        with pytest.raises(sdk.NonRetryableException, match=why):
            asyncio.run(count.aio_mock_run(told(), parent_outputs={"open": gave({"pages": pages})}))


@pytest.mark.parametrize("size", [KIBI, 600 * KIBI])
def test_large_outputs_travel_by_reference_and_small_ones_need_no_state_store(size: int, shelf: Shelf) -> None:
    tasks = tasks_of(engine_of(Large, shelf=shelf if size > 512 * KIBI else None))
    written = json.loads(attempt(tasks["write"], told(size).model_dump(), {}, 0, "run-1", {}))
    by_reference = {"state": "succeeded", "attempt": 1, "at": "workers:workflow:run-1:output:write"}
    assert (written == by_reference) is (size > 512 * KIBI)
    assert tasks["read"].mock_run(told(size), parent_outputs={"write": written})["output"] == str(size // 2)
    if written == by_reference:
        left = shelf._redis.ttl(written["at"])
        assert 655 <= left <= 661  # seconds: what is left of the run, and the retention
        shelf._redis.delete(written["at"])
        with pytest.raises(sdk.NonRetryableException, match="is no more in the state store"):
            tasks["read"].mock_run(told(size), parent_outputs={"write": written})


def test_a_state_store_that_is_away_is_waited_for() -> None:
    away = Shelf(60, lambda: redis.Redis(port=9))
    late = told().model_copy(update={"input": {"at": "anything"}, "until": time.time() + 0.3})
    with pytest.raises(sdk.RetryAfterException, match="the state store"):
        tasks_of(engine_of(Troubled, shelf=away))["try"].mock_run(late)


def test_outputs_of_many_steps_fit_one_message_together(shelf: Shelf) -> None:
    names = [f"s{at}" for at in range(20)]
    made = {name: task(name=name)(lambda _self, size, _ctx: "x" * size) for name in names}
    many = workflow(name="many")(type("Many", (BaseWorkflow,), made))
    found = [
        tasks_of(engine_of(many, shelf=shelf))[name].mock_run(told(size))
        for name in names
        for size in (170_000, 180_000)
    ]
    assert {"output" in one for one in found[::2]} == {True}
    assert {"at" in one for one in found[1::2]} == {True}
    assert sum(len(json.dumps(one)) for one in found[::2]) < 4 * KIBI * KIBI


# The whole of it, over gRPC.


def same(view: RunView) -> dict[str, tuple[Any, ...]]:
    return {name: (step.state, step.reason, step.attempt, step.index) for name, step in view.steps.items()}


@pytest.mark.parametrize(
    ("value", "ends_as"),
    [
        ({"texts": ["a b", "c", "fails-once d e"], "praise": True}, RunStatus.SUCCEEDED),
        ({"texts": ["a b", "fails c", "fails"]}, RunStatus.FAILED),
        ({"texts": []}, RunStatus.SUCCEEDED),
        ({"texts": None}, RunStatus.FAILED),
    ],
)
def test_a_run_ends_as_it_does_in_threads(value: dict[str, Any], ends_as: RunStatus, board: tuple[Board, str]) -> None:
    hatchet, address = board
    local = TaskClient(LocalEngine(Limits(), unused), Catalogue([Reading]))
    ends = []
    for client in (local, hatchet.serve(engine_of(Reading, address=address))):
        run_id = client.start_workflow("Reading", value, organization_id="org_1")
        events = list(client.events(run_id))
        view = client.status(run_id)
        outputs = {name: json.loads(client.engine.output(run_id, name) or "null") for name in view.steps}
        assert events[0].state == "running"
        last: dict[str | None, str] = {event.step: event.state for event in events}
        assert last.pop(None) == view.status
        assert last == {name: step.state for name, step in view.steps.items()}
        ends.append((view.status, same(view), outputs))
        client.close()
    assert ends[0] == ends[1]
    assert ends[0][0] is ends_as


def test_a_failure_is_told_with_step_item_attempt_and_reason(board: tuple[Board, str]) -> None:
    hatchet, address = board
    client = hatchet.serve(engine_of(Reading, address=address))
    with pytest.raises(RunFailedError, match="step count, item 1 failed at attempt 1: page 1 cannot be counted"):
        client.run_workflow_sync("Reading", {"texts": ["a", "fails"]})
    assert asyncio.run(client.run_workflow("Reading", {"texts": ["a b"]})) == {
        "say": {"words": 2, "praise": None, "org": None},
        "aside": "\ud800 and \x00 are text",
    }


def test_items_are_runs_with_keys_told_of_their_run(board: tuple[Board, str]) -> None:
    hatchet, address = board
    client = hatchet.serve(engine_of(Reading, address=address))
    texts = ["word"] * 250
    assert client.run_workflow_sync("Reading", {"texts": texts}, organization_id="org")["say"]["words"] == 250
    _, *items = hatchet.requests
    assert [item.child_key for item in items] == [str(at) for at in range(250)]
    assert {item.name for item in items} == {"Reading.count"}
    first = json.loads(items[0].input)
    assert (first["organization_id"], first["index"], first["parents"]) == ("org", 0, {"Open": "succeeded"})
    assert first["run_id"] in hatchet.runs


def test_large_items_and_inputs_travel_by_reference(board: tuple[Board, str], shelf: Shelf) -> None:
    hatchet, address = board
    client = hatchet.serve(engine_of(Reading, address=address, shelf=shelf))
    texts = ["w " * 20_000, "w"]
    assert client.run_workflow_sync("Reading", {"texts": texts})["say"]["words"] == 20_001
    assert all(len(request.input) < KIBI for request in hatchet.requests)


def test_a_run_key_starts_a_run_once(board: tuple[Board, str]) -> None:
    hatchet, address = board
    client = hatchet.serve(engine_of(Large, Troubled, address=address))
    first = client.start_workflow("large", 8, run_key="k", organization_id="a")
    assert client.start_workflow("large", 8, run_key="k", organization_id="a") == first
    with pytest.raises(RunKeyError, match=f"run {first} was started with run_key 'k' and another input"):
        client.start_workflow("large", 9, run_key="k", organization_id="a")
    others = [client.start_workflow("large", 8, organization_id="a", run_key=key) for key in (None, None, "other")]
    others += [client.start_workflow("large", 8, organization_id="b", run_key="k")]
    assert len({first, *others, client.start_workflow("troubled", "", organization_id="a", run_key="k")}) == 6


def test_events_go_on_from_any_of_them_in_another_process_too(board: tuple[Board, str]) -> None:
    hatchet, address = board
    hatchet.held.clear()
    client = hatchet.serve(engine_of(Large, address=address))
    run_id = client.start_workflow("large", 8)
    (begun,) = client.engine.events(run_id, None, 0)
    assert client.status(run_id).steps["write"].state is StepState.WAITING
    assert client.engine.events(run_id, begun.id, 0.05) == []
    hatchet.held.set()
    told_of = list(client.events(run_id, begun.id))
    other = engine_of(Large, address=address)
    ended = [("write", "succeeded"), ("read", "succeeded"), (None, "succeeded")]
    assert [(event.step, event.state) for event in told_of if event.state == "succeeded"] == ended
    for at, event in enumerate(told_of):
        rest = [(one.step, one.state) for one in other.events(run_id, event.id, 0)]
        assert [one for one in rest if one[1] == "succeeded"] == [
            (one.step, one.state) for one in told_of[at + 1 :] if one.state == "succeeded"
        ]


def test_a_run_that_hatchet_has_ended_itself(board: tuple[Board, str]) -> None:
    hatchet, address = board
    client = hatchet.serve(engine_of(Reading, address=address))
    about = json.dumps({"workflow": "Reading", "began": 1.0}).encode()
    done = v1.TaskRunDetail(status=v1.RunStatus.COMPLETED, output=json.dumps(gave({})).encode())
    cut = v1.TaskRunDetail(status=v1.RunStatus.CANCELLED)
    hatchet.runs["cancelled"] = v1.GetRunDetailsResponse(
        status=v1.RunStatus.CANCELLED, done=True, additional_metadata=about, task_runs={"open": done, "count": cut}
    )
    late = v1.TaskRunDetail(status=v1.RunStatus.FAILED, error="execution timed out after 30s")
    hatchet.runs["late"] = v1.GetRunDetailsResponse(
        status=v1.RunStatus.FAILED, done=True, additional_metadata=about, task_runs={"open": done, "count": late}
    )
    states = [step.state for step in client.status("cancelled").steps.values()]
    assert states == ["succeeded", "cancelled", "cancelled", "cancelled", "cancelled"]
    with pytest.raises(RunCancelledError):
        client.result("cancelled")
    assert client.cancel("cancelled") is False
    with pytest.raises(RunFailedError, match="step count failed at attempt 3: execution timed out after 30s"):
        client.result("late")


def test_a_run_that_still_goes_on_is_cancelled_at_hatchets_api(board: tuple[Board, str]) -> None:
    hatchet, address = board
    asked: list[tuple[str, Any]] = []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200 if len(asked) == 1 else 500)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"ids": []}')

    hatchet.held.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as api:
        threading.Thread(target=api.serve_forever, daemon=True).start()
        engine = engine_of(Large, address=address, api=f"127.0.0.1:{api.server_port}")
        client = hatchet.serve(engine)
        run_id = client.start_workflow("large", 8)
        assert client.cancel(run_id) is True
        with pytest.raises(TransientError, match="Hatchet cannot be asked: Internal Server Error"):
            client.cancel(run_id)
        api.shutdown()
    path, body = asked[0]
    assert path == f"/api/v1/stable/tenants/{engine.hatchet.tenant_id}/tasks/cancel"
    assert body["externalIds"] == [run_id]


def test_what_hatchet_refuses_is_told_as_ours(board: tuple[Board, str]) -> None:
    hatchet, address = board
    client = hatchet.serve(engine_of(Large, address=address))
    hatchet.runs["other"] = v1.GetRunDetailsResponse(status=v1.RunStatus.RUNNING)
    for unknown in (str(uuid4()), "other"):
        with pytest.raises(UnknownRunError):
            client.status(unknown)
    away = TaskClient(engine_of(Large), Catalogue([Large]))
    with pytest.raises(TransientError, match="Hatchet cannot be asked: UNAVAILABLE"):
        away.start_workflow("large", 8)


# (b) What Hatchet is told of a workflow.


def seconds_of(expression: str) -> int:
    return int(expression[:-1]) * {"s": 1, "m": 60, "h": 3600}[expression[-1]]


def check(declaration: Declaration) -> None:
    engine = HatchetEngine(client_of_hatchet(), Catalogue([declaration.owner]), Limits(), Shelf(60, unused), unused)
    shape = declaration.shape
    protos = {made.name: made.to_proto() for made in engine.registered}
    whole = protos.pop(shape.name)
    tasks = {one.readable_id: one for one in whole.tasks}
    assert sorted(tasks) == sorted(step.name.lower() for step in shape.steps)
    assert (whole.idempotency.expression, whole.idempotency.ttl_ms) == ("input.key", round(shape.timeout + 60) * 1000)
    most = {"low": 1, "default": 2, "high": 3}
    assert whole.default_priority == max(most[step.priority] for step in shape.steps)
    assert whole.HasField("on_failure_task") is (shape.on_failure is not None)
    for step in shape.steps:
        one = tasks[step.name.lower()]
        assert list(one.parents) == [parent.lower() for parent in step.parents]
        assert one.is_durable is (step.map_over is not None)
        assert seconds_of(one.schedule_timeout) == shape.timeout
        if step.map_over is None:
            check_options(one, step)
            continue
        assert (one.retries, seconds_of(one.timeout)) == (0, shape.timeout)
        child = protos.pop(f"{shape.name}.{step.name}")
        assert child.default_priority == most[step.priority]
        check_options(child.tasks[0], step)
    assert protos == {}
    if shape.on_failure is not None:
        assert whole.on_failure_task.readable_id == "on_failure-on-failure"
        check_options(whole.on_failure_task, shape.on_failure)


def check_options(one: Any, step: Any) -> None:
    assert one.retries == step.retries
    assert 0 <= seconds_of(one.timeout) - step.timeout < 1
    waits = step.retries > 0 and step.backoff > 0
    assert (one.backoff_factor, one.backoff_max_seconds) == ((2.0, 60) if waits else (0.0, 0))


@pytest.mark.parametrize("owner", [Reading, Large, Troubled])
def test_hatchet_is_told_what_was_declared(owner: type[BaseWorkflow]) -> None:
    check(owner.declaration)


OPTIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "timeout_minutes": st.floats(0.001, 600, allow_nan=False),
        "retries": st.integers(0, 5),
        "backoff_seconds": st.sampled_from([0, 0.5, 3]),
        "priority": st.sampled_from([None, "high", "default", "low"]),
    }
)


@st.composite
def declarations(draw: st.DrawFn) -> type[BaseWorkflow]:
    def body(_self: Any, _input: Any, _ctx: Any) -> None:
        """It is not run here."""

    made: dict[str, Any] = {}
    names = draw(
        st.lists(
            st.from_regex(r"[A-Za-z0-9][a-z0-9_.-]{0,9}", fullmatch=True), min_size=1, max_size=7, unique_by=str.lower
        )
    )
    names = [name for name in names if name != ON_FAILURE] or ["one"]
    for at, name in enumerate(names):
        parents: list[str] = draw(st.lists(st.sampled_from(names[:at]), unique=True, max_size=3)) if at else []
        mapped = draw(st.booleans())
        over: dict[str, Any] = {"map_over": f"{parents[0]}.list"} if parents and mapped else {}
        method = FunctionType(body.__code__, body.__globals__)
        made[f"m{at}"] = task(name=name, parents=parents, **over, **draw(OPTIONS))(method)
    if draw(st.booleans()):
        made[ON_FAILURE] = body
    minutes = draw(st.integers(1, 600))
    return workflow(name="drawn", timeout_minutes=minutes)(type("Drawn", (BaseWorkflow,), made))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(declarations())
def test_hatchet_is_told_what_any_graph_is(owner: type[BaseWorkflow]) -> None:
    check(owner.declaration)


# (c) Nobody else has the SDK in it; and what is missing is said.

SCRIPT = """
import sys
{before}
from shared.workflows.client import get_task_client
client = get_task_client()
print(client.run_workflow_sync("hello", "you"), "hatchet_sdk" in sys.modules, "grpc" in sys.modules)
"""
MODULE = """
from typing import Any
from shared.workflows.declaration import BaseWorkflow, task, workflow

@workflow(name="hello")
class Hello(BaseWorkflow):
    @task(name="greet", retries=1)
    def greet(self, who: str, ctx: Any) -> str:
        if who == "fail":
            raise RuntimeError(who)
        return f"Good morning, {who}"
"""
WITHOUT = "sys.modules['hatchet_sdk'] = sys.modules['grpc'] = None"


def ran(script: str, folder: Path, *argv: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    (folder / "hello_workflows.py").write_text(MODULE)
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": f"{ROOT}:{folder}",
        "WORKFLOW_MODULES": "hello_workflows",
        **variables,
    }
    command = [sys.executable, *(argv or ("-c", script))]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("before", ["", WITHOUT])
def test_a_local_workflow_has_no_hatchet_in_it_and_needs_none(before: str, tmp_path: Path) -> None:
    found = ran(SCRIPT.format(before=before), tmp_path, TASK_QUEUE_BACKEND="local")
    expected = (
        "{'greet': 'Good morning, you'} False False" if not before else "{'greet': 'Good morning, you'} True True"
    )
    assert (found.stdout.strip(), found.returncode) == (expected, 0), found.stderr


def test_a_missing_sdk_is_said_with_the_remedy(tmp_path: Path) -> None:
    found = ran(SCRIPT.format(before=WITHOUT), tmp_path, TASK_QUEUE_BACKEND="hatchet")
    assert found.returncode == 1
    assert "SettingsError: TASK_QUEUE_BACKEND is hatchet, and" in found.stderr
    assert "uv sync --group hatchet" in found.stderr


WORKER = {
    "ENVIRONMENT": "development",
    "INTERNAL_API_BASE_URL": "http://127.0.0.1:9/internal",
    "INTERNAL_SERVICE_API_KEY": "unused",
    "CELERY_BROKER_URL": "redis://127.0.0.1:9/0",
    "CACHE_REDIS_HOST": "127.0.0.1",
}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "INTERNAL_API_BASE_URL is not set"),
        (WORKER, "HATCHET_CLIENT_TOKEN"),
        (WORKER | {"HATCHET_CLIENT_TOKEN": "secret-and-wrong"}, "Token must be a valid JWT"),
        (WORKER | {"HATCHET_CLIENT_TOKEN": token(), "WORKFLOW_MODULES": ""}, "WORKFLOW_MODULES names no module"),
        (
            WORKER | {"HATCHET_CLIENT_TOKEN": token(), "WORKFLOW_MODULES": "no.such"},
            "no.such, which cannot be imported",
        ),
    ],
)
def test_a_worker_that_cannot_start_says_why(variables: dict[str, str], reason: str, tmp_path: Path) -> None:
    found = ran("", tmp_path, "-m", "shared.workflows.engines.hatchet", **variables)
    assert found.returncode == 1
    assert "workers: hatchet cannot start:\n" in found.stderr
    assert reason in found.stderr
    assert "Traceback" not in found.stderr


def action(name: str, value: Any) -> Any:
    payload = json.dumps({"input": told(value).model_dump(mode="json")})
    return dispatcher_pb2.AssignedAction(
        action_type="START_STEP_RUN", action_id="hello:greet", task_run_external_id=name, action_payload=payload
    )


def test_a_worker_of_the_sdk_registers_our_workflows_and_runs_their_steps(
    board: tuple[Board, str], tmp_path: Path
) -> None:
    hatchet, address = board
    hatchet.actions = [action("good", "you"), action("bad", "fail"), action("wrong", 7)]
    (tmp_path / "hello_workflows.py").write_text(MODULE)
    chosen = {"HATCHET_CLIENT_TOKEN": token(address), "HATCHET_CLIENT_TLS_STRATEGY": "none", "LOG_FORMAT": "json"}
    chosen |= {"PATH": os.defpath, "PYTHONPATH": f"{ROOT}:{tmp_path}", "WORKFLOW_MODULES": "hello_workflows"}
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "shared.workflows.engines.hatchet"],
            cwd=tmp_path,
            env=WORKER | chosen,
            stdout=subprocess.DEVNULL,  # where the listener of the SDK, a process of its own, says what it does
            stderr=log,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and worker.poll() is None and len(hatchet.ends) < 3:
            time.sleep(0.05)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    said = (tmp_path / "log").read_text()
    assert [request.name for request in hatchet.requests] == ["hello"], said
    good, bad, wrong = (hatchet.ends[name] for name in ("good", "bad", "wrong"))
    assert json.loads(good.event_payload) == gave("Good morning, you")
    assert "attempt 1: RuntimeError: fail" in bad.event_payload
    assert (bad.should_not_retry, 0 <= bad.retry_after_ms <= 1000) == (False, True)
    assert bad.HasField("retry_after_ms")
    assert "the input of step greet is not str" in wrong.event_payload
    assert wrong.should_not_retry
    ours = [line for line in said.splitlines() if "failed step run" in line]
    assert ours
    assert {json.loads(line)["logger"] for line in ours} == {"hatchet"}


def test_a_token_is_asked_for_by_the_client_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HATCHET_CLIENT_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="HATCHET_CLIENT_TOKEN"):
        make(Catalogue([Large]), Limits())
