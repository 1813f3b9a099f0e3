"""Second citizens of our borders, with memory: a backend, a state store, an application that sends nothing."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from config.workers import PROFILES, Profile
from shared.api_client import OrganizationAPI
from shared.backend_models import Execution, FileExecution, FileRun
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import BackendUnavailableError, NotFoundError, WorkerError
from shared.execution_state import FanIn
from shared.models import (
    TERMINAL,
    BatchResult,
    Counts,
    ExecuteOptions,
    ExecuteRequest,
    FileData,
    FileHash,
    FileResult,
    PipelineStatus,
    Status,
)
from shared.platform_models import ToolInstance
from shared.task import Call, WorkerApp

ENVIRONMENT = {
    "ENVIRONMENT": "development",
    "INTERNAL_API_BASE_URL": "http://backend.invalid/internal",
    "INTERNAL_SERVICE_API_KEY": "unit-test-key",
    "CELERY_BROKER_URL": "redis://broker.invalid/0",
    "CACHE_REDIS_HOST": "state.invalid",
}


def settings(**variables: str) -> Settings:
    return Settings.load(ENVIRONMENT | variables)


@dataclass
class FakeBackend:
    """One organization's backend. Plans are what the tools will answer: a file name to its runs, in turn."""

    organization_id: str = "org"
    status: str = "PENDING"
    total_files: int | None = None
    is_api: bool = True
    pipeline_id: str | None = None
    batches: Any = 1
    source: dict[str, FileHash] = field(default_factory=dict)
    plans: dict[str, list[FileRun | WorkerError]] = field(default_factory=dict)
    refusals: dict[str, WorkerError] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    ended: tuple[Status, Counts, str | None] | None = None
    pipeline: PipelineStatus | None = None
    unreachable: set[str] = field(default_factory=set)
    tools_are_valid: bool = True
    stopped_meanwhile: bool = False
    accepted: dict[str, str] = field(default_factory=dict)
    deadlines: list[Deadline] = field(default_factory=list)

    def until(self, deadline: Deadline) -> "FakeBackend":
        self.deadlines.append(deadline)
        return self

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refusals:
            raise self.refusals[name]

    def execution(self, execution_id: str) -> Execution:
        self._called("execution")
        row = {"id": execution_id, "workflow_id": "wf", "status": self.status, "total_files": self.total_files}
        return Execution.model_validate(
            {"execution": row | {"pipeline_id": self.pipeline_id}, "source_config": {"is_api": self.is_api}}
        )

    def end_execution(self, _execution_id: str, status: Status, counts: Counts, message: str | None) -> bool:
        self._called("end_execution")
        assert self.status not in TERMINAL
        if self.stopped_meanwhile:
            self.status = "STOPPED"
            return False
        self.status, self.ended = status, (status, counts, message)
        return True

    def start_execution(self, _execution_id: str, total_files: int) -> None:
        self._called("start_execution")
        self.status, self.total_files = "EXECUTING", total_files

    def tool_instances(self, _workflow_id: str) -> list[ToolInstance]:
        self._called("tool_instances")
        return [ToolInstance(id="tool", tool_id="text_extractor")]

    def validate_tools(self, _workflow_id: str, _tool_instances: list[str]) -> bool:
        self._called("validate_tools")
        return self.tools_are_valid

    def configuration(self, _key: str) -> Any:
        self._called("configuration")
        return self.batches

    def source_files(self, _workflow_id: str, _execution_id: str, _options: ExecuteOptions) -> dict[str, FileHash]:
        self._called("source_files")
        return self.source

    def file_execution(self, _execution_id: str, _workflow_id: str, file: FileHash) -> FileExecution:
        self._called("file_execution")
        key = f"fe-{file.file_name}"
        if key in self.unreachable:
            raise BackendUnavailableError("away")
        return FileExecution(id=key, status=self.files.setdefault(key, ""))

    def file_status(self, file_execution_id: str, status: Status, error: str | None = None) -> None:
        self._called("file_status")
        assert self.files[file_execution_id] not in TERMINAL
        assert (error is None) is (status is Status.COMPLETED)
        self.files[file_execution_id] = status

    def execute_file(self, file_execution_id: str, _data: FileData, file: FileHash) -> FileRun:
        self._called("execute_file")
        run = self._next(file.file_name)
        self.accepted[file_execution_id] = file.file_name
        return run

    def file_run(self, file_execution_id: str) -> FileRun:
        self._called("file_run")
        if file_execution_id not in self.accepted:
            raise NotFoundError("never accepted", 404)
        return self._next(self.accepted[file_execution_id])

    def pipeline_status(self, _pipeline_id: str, status: PipelineStatus, *, is_end: bool) -> None:
        self._called("pipeline_status")
        assert is_end
        self.pipeline = status

    def _next(self, name: str) -> FileRun:
        plan = self.plans.get(name)
        answer = plan.pop(0) if plan else completed()
        if isinstance(answer, WorkerError):
            raise answer
        return answer


def request(**options: Any) -> ExecuteRequest:
    return ExecuteRequest(
        organization_id="org", workflow_id="wf", execution_id="ex", files={}, options=ExecuteOptions(**options)
    )


def completed(text: str = "text") -> FileRun:
    return FileRun(status="COMPLETED", result={"text": text}, execution_time=0.5, metadata={})


class FakeState:
    """The state of executions, in memory. Behaves as `ExecutionState`; one suite holds both to it."""

    def __init__(self) -> None:
        self.fan_ins: dict[str, FanIn] = {}
        self.sent: set[str] = set()
        self.claims: dict[str, int] = {}
        self.batches: dict[str, dict[int, BatchResult]] = {}
        self.files: dict[str, dict[str, FileResult]] = {}
        self.started: dict[str, dict[str, float]] = {}
        self.results: dict[str, list[Mapping[str, Any]]] = {}
        self.pushed: set[tuple[str, str]] = set()
        self.failures: dict[str, str] = {}

    def open_fan_in(self, execution_id: str, fan_in: FanIn) -> FanIn:
        return self.fan_ins.setdefault(execution_id, fan_in)

    def fan_in(self, execution_id: str) -> FanIn | None:
        return self.fan_ins.get(execution_id)

    def record_batch(self, execution_id: str, batch: int, result: BatchResult) -> FanIn | None:
        fan_in = self.fan_ins.get(execution_id)
        if fan_in is None:
            return None
        recorded = self.batches.setdefault(execution_id, {})
        recorded.setdefault(batch, result)
        if len(recorded) < fan_in.batches or execution_id in self.sent:
            return None
        return fan_in if self.claims.setdefault(execution_id, batch) == batch else None

    def batch_results(self, execution_id: str) -> list[dict[str, Any]]:
        return [result.model_dump(mode="json") for _, result in sorted(self.batches.get(execution_id, {}).items())]

    def callback_sent(self, execution_id: str) -> None:
        if execution_id in self.fan_ins:
            self.sent.add(execution_id)

    def file_results(self, execution_id: str, places: list[str]) -> dict[str, FileResult]:
        kept = self.files.get(execution_id, {})
        return {place: kept[place] for place in places if place in kept}

    def file_started(self, execution_id: str, place: str, now: float) -> float:
        return self.started.setdefault(execution_id, {}).setdefault(place, now)

    def record_file(self, execution_id: str, place: str, result: FileResult) -> None:
        self.files.setdefault(execution_id, {})[place] = result

    def push_api_result(
        self, workflow_id: str, execution_id: str, file_execution_id: str, item: Mapping[str, Any]
    ) -> bool:
        if (execution_id, file_execution_id) in self.pushed:
            return False
        self.pushed.add((execution_id, file_execution_id))
        self.results.setdefault(f"api_results:{workflow_id}:{execution_id}", []).append(item)
        return True

    def fail(self, execution_id: str, reason: str) -> None:
        self.failures.setdefault(execution_id, reason)

    def failure(self, execution_id: str) -> str | None:
        return self.failures.get(execution_id)

    def forget(self, execution_id: str) -> None:
        for kept in (self.fan_ins, self.claims, self.batches, self.files, self.started, self.failures):
            cast("dict[str, Any]", kept).pop(execution_id, None)
        self.sent.discard(execution_id)

    def forget_files(self, execution_id: str, places: list[str]) -> None:
        for place in places:
            self.files.get(execution_id, {}).pop(place, None)
            self.started.get(execution_id, {}).pop(place, None)


@dataclass
class Sent:
    task: str
    queue: str
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, Any]


@dataclass
class FakeApp:
    """An application whose messages stay here."""

    profile: Profile = PROFILES["all"]
    backend: FakeBackend = field(default_factory=FakeBackend)
    state: FakeState = field(default_factory=FakeState)
    settings: Settings = field(default_factory=settings)
    sent: list[Sent] = field(default_factory=list)
    broker_is_away: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def resources(self) -> "FakeApp":
        return self

    @property
    def client(self) -> "FakeApp":
        return self

    def for_organization(self, organization_id: str, _within: Deadline | None = None) -> OrganizationAPI:
        self.backend.organization_id = organization_id
        return cast("OrganizationAPI", self.backend)

    def send_task(self, task: str, *, args: list[Any], kwargs: dict[str, Any], queue: str, **options: Any) -> None:
        if self.broker_is_away:
            raise OSError("connection refused")
        self.sent.append(Sent(task, queue, args, kwargs, options.get("headers", {})))

    def call(self, task: str = "task", *, queue: str = "queue", **headers: Any) -> Call:
        app = cast("WorkerApp", self)
        seconds = self.settings.batch_slice
        slice_, deadline = Deadline.after(seconds, "slice"), Deadline.after(2 * seconds, "task")
        return Call(app, task, "task-1", queue, headers, slice_, deadline)
