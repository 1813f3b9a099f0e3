"""Second citizens of our borders, with memory: a backend, a state store, an application that sends nothing."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import fakeredis

from config.workers import PROFILES, WORKERS, Pool, Profile, Retries
from monitoring.registry import KEPT
from shared.api_client import OrganizationAPI
from shared.backend_models import ActiveFiles, Execution, FileExecution, FileRun, History
from shared.call import Call, WorkerApp
from shared.claims import Claims
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import AnswerTooLargeError, BackendUnavailableError, NotFoundError, WorkerError
from shared.execution_state import ExecutionState, Run
from shared.models import (
    TERMINAL,
    Context,
    Counts,
    ExecuteOptions,
    ExecuteRequest,
    FileData,
    FileHash,
    PipelineStatus,
    Status,
)
from shared.passage import message_headers
from shared.platform_models import Notification, NotificationEvent, Notifications, ToolInstance

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
    histories: dict[str, History] = field(default_factory=dict)
    most_histories: int = 1_000
    remembered: dict[str, FileRun] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)
    notifications: list[Notification] = field(default_factory=list)
    told: list[NotificationEvent] = field(default_factory=list)
    rows: list[FileExecution] = field(default_factory=list)
    terminal_may_change: bool = False
    on_call: Callable[[str], None] = lambda _name: None
    marks: list[tuple[str, list[str], int]] = field(default_factory=list)
    shown: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)

    def until(self, deadline: Deadline) -> "FakeBackend":
        self.deadlines.append(deadline)
        return self

    def _called(self, name: str) -> None:
        self.on_call(name)
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
        assert self.status not in TERMINAL or self.terminal_may_change
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

    def file_histories(self, _workflow_id: str, file_hashes: list[str]) -> dict[str, History]:
        self._called("file_histories")
        if len(file_hashes) > self.most_histories:
            raise AnswerTooLargeError("too much text")
        return {key: self.histories[key] for key in file_hashes if key in self.histories}

    def remember_file(self, _workflow_id: str, file: FileHash, run: FileRun, *, is_api: bool) -> None:
        self._called("remember_file")
        assert file.file_hash
        assert is_api is self.is_api
        self.remembered[file.file_hash] = run

    def active_files(self, _workflow_id: str, _execution_id: str, _files: list[FileHash]) -> ActiveFiles:
        self._called("active_files")
        return ActiveFiles(active_identifiers=self.active)

    def file_executions(self, _execution_id: str) -> list[FileExecution]:
        self._called("file_executions")
        return self.rows

    def pipeline_notifications(self, _pipeline_id: str, _execution_id: str) -> Notifications:
        self._called("pipeline_notifications")
        return Notifications(notifications=self.notifications, pipeline_name="notes", pipeline_type="ETL")

    def enqueue_notification(self, event: NotificationEvent) -> str:
        self._called("enqueue_notification")
        self.told.append(event)
        return "row"

    def mark_dispatched(self, rows: list[str], organization: int) -> int:
        self._called("mark_dispatched")
        self.marks.append(("dispatched", rows, organization))
        return len(rows)

    def mark_dead(self, rows: list[str], organization: int) -> int:
        self._called("mark_dead")
        self.marks.append(("dead", rows, organization))
        return len(rows)

    def emit(self, room: str, event: str, data: Mapping[str, Any], _within: Deadline | None = None) -> None:
        self._called("emit")
        self.shown.append((room, event, data))

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


def known(app: "FakeApp", *, is_api: bool = True, batches: int | None = None, files: int = 0) -> None:
    """Make the execution of `request` known, as the orchestrator does."""
    app.state.register(Run("ex", "org", "wf", "pipe", is_api))
    app.state.keep_context(Context(execution_id="ex", workflow_id="wf", organization_id="org", is_api=is_api))
    if batches is not None:
        app.state.open_fan_in("ex", batches, files, {})


def completed(text: str = "text") -> FileRun:
    return FileRun(status="COMPLETED", result={"text": text}, execution_time=0.5, metadata={})


def soon_again(profile: Profile) -> Profile:
    """The same, but what failed is tried again at once."""
    return replace(profile, workers=tuple(replace(one, retries=Retries(first_wait=0.05)) for one in profile.workers))


def one_worker(name: str, tasks: str, *queues: str) -> Profile:
    """A profile of one worker with two slots, whose tasks are tried again at once."""
    worker = replace(WORKERS["callback"], name=name, tasks=tasks, queues=queues, timers=())
    return soon_again(Profile(name, (worker,), queues, Pool(concurrency=2), 1))


def memory() -> fakeredis.FakeRedis:
    """A Redis in this process, scripts and all."""
    return fakeredis.FakeRedis(decode_responses=True)


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
    settings: Settings = field(default_factory=settings)
    redis: Any = field(default_factory=memory)
    sent: list[Sent] = field(default_factory=list)
    broker_is_away: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)
    things: dict[str, Any] = field(default_factory=dict)

    def held(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.things:
            self.things[name] = make()
        return self.things[name]

    def emit(self, *said: Any) -> None:
        self.backend.emit(*said)

    def __post_init__(self) -> None:
        self.state = ExecutionState(self.redis, self.settings.execution_deadline, self.settings.stall)
        self.claims = Claims(self.redis, self.settings.lease)

    def kept(self) -> set[str]:
        """The keys in the state store, but for the last errors, which are nobody's."""
        return set(map(str, self.redis.keys("*"))) - {"workers:errors"}

    def pushed(self, name: str) -> list[dict[str, Any]]:
        """A list of the state store, decoded."""
        return [json.loads(item) for item in self.redis.lrange(name, 0, -1)]

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
        self.sent.append(Sent(task, queue, args, kwargs, {**options.get("headers", {}), **message_headers()}))

    def call(self, task: str = "task", *, queue: str = "queue", sends: int = 0, **headers: Any) -> Call:
        app = cast("WorkerApp", self)
        seconds = self.settings.batch_slice
        slice_, deadline = Deadline.after(seconds, "slice"), Deadline.after(2 * seconds, "task")
        return Call(app, task, "task-1", queue, headers, slice_, deadline, sends=sends)


def ended(outcome: str, task: str) -> float:
    """How many deliveries of a task this process has counted that ended so: succeeded, failed, duplicate …"""
    ours = outcome in {"handed_back", "duplicate"}
    return KEPT.value(f"{'workers' if ours else 'celery'}_task_{outcome}_total", name=task)
