"""The registry: which worker runs what, and which workers a process holds.

One frozen row per worker; a profile names the workers that share one process. Everything else that must know what
runs where (the Celery application, routing, deployment) derives it from here.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Orchestration:
    """How one kind of execution runs. Queues and task names: contract section 1.

    Attributes:
        is_api: the kind of execution this row is for, as the backend's `source_config.is_api` says it.
        source: `module:function` that lists an execution's files, `(call, backend, request) -> files`.
        queue: where `async_execute_bin` belongs for this kind.
        batch_queue: where its batches of files go.
        callback_task: the task that ends an execution of this kind.
        callback_queue: where that task goes.
    """

    is_api: bool
    source: str
    queue: str
    batch_queue: str
    callback_task: str
    callback_queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker.

    Attributes:
        name: also its folder.
        tasks: the module that is the index of its tasks.
        queues: what it consumes.
        health_port: TCP port of its health server.
        concurrency: how many tasks it runs at once in its threads.
        orchestration: the kind of execution it orchestrates, if it does.
        timers: `module:function` of the rounds that it makes on its own timer.
    """

    name: str
    tasks: str
    queues: tuple[str, ...]
    health_port: int
    concurrency: int
    orchestration: Orchestration | None = None
    timers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The workers that one process holds."""

    name: str
    workers: tuple[Worker, ...]

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue this process consumes."""
        return tuple(queue for worker in self.workers for queue in worker.queues)

    @property
    def task_modules(self) -> tuple[str, ...]:
        """Every module whose tasks this process registers."""
        return tuple(worker.tasks for worker in self.workers)

    @property
    def concurrency(self) -> int:
        """Slots of the process: room for each of its workers."""
        return sum(worker.concurrency for worker in self.workers)

    def orchestrates(self, orchestration: Orchestration) -> bool:
        """Whether executions of that kind are orchestrated in this process."""
        return any(worker.orchestration == orchestration for worker in self.workers)


class UnknownProfileError(ValueError):
    """No worker or profile has that name."""

    def __init__(self, name: str) -> None:
        near = difflib.get_close_matches(name, PROFILES, n=3) or list(PROFILES)
        super().__init__(f"there is no worker or profile {name!r}; did you mean {' or '.join(near)}?")


_WORKERS = (
    Worker(
        name="api_deployment",
        tasks="api_deployment.tasks",
        queues=("celery_api_deployments",),
        health_port=8080,
        concurrency=8,
        orchestration=Orchestration(
            is_api=True,
            source="api_deployment.execution:source_files",
            queue="celery_api_deployments",
            batch_queue="api_file_processing",
            callback_task="process_batch_callback_api",
            callback_queue="api_file_processing_callback",
        ),
    ),
    Worker(
        name="general",
        tasks="general.tasks",
        queues=(
            "celery",
            "scheduler",
            "notifications",
            "notifications_webhook",
            "notifications_priority",
            "celery_log_task_queue",
            "celery_periodic_logs",
        ),
        health_port=8081,
        concurrency=16,
        orchestration=Orchestration(
            is_api=False,
            source="general.pipeline:source_files",
            queue="celery",
            batch_queue="file_processing",
            callback_task="process_batch_callback",
            callback_queue="file_processing_callback",
        ),
    ),
    Worker(
        name="file_processing",
        tasks="file_processing.tasks",
        queues=("file_processing", "api_file_processing"),
        health_port=8082,
        concurrency=16,
    ),
    Worker(
        name="callback",
        tasks="callback.tasks",
        queues=("file_processing_callback", "api_file_processing_callback"),
        health_port=8083,
        concurrency=8,
        timers=("callback.reaper:sweep",),
    ),
)

WORKERS: Mapping[str, Worker] = MappingProxyType({worker.name: worker for worker in _WORKERS})

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {worker.name: Profile(worker.name, (worker,)) for worker in _WORKERS} | {"all": Profile("all", _WORKERS)}
)


def profile_named(name: str) -> Profile:
    """The profile of that name.

    Raises:
        UnknownProfileError: there is none; the message names the nearest. A typo must never start another worker.
    """
    if name not in PROFILES:
        raise UnknownProfileError(name)
    return PROFILES[name]


def orchestration_of(*, is_api: bool) -> Orchestration:
    """The row for an execution of that kind."""
    rows = (worker.orchestration for worker in _WORKERS)
    return next(row for row in rows if row is not None and row.is_api is is_api)
