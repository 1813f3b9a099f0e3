"""The registry: which worker runs what, and which workers and queues a process holds.

One frozen row per worker; a profile is what one process holds. Everything else that must know what runs where (the
Celery application, routing, deployment) derives it from here.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from config.queue_routing import QUEUES, WORKFLOW_QUEUES, Priority


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
class Pool:
    """How a process runs its tasks. What is prefork's alone is None on threads, which cannot be ended from outside.

    Attributes:
        kind: `threads` or `prefork`.
        concurrency: how many tasks at once.
        prefetch: messages that each of these slots takes, the one it works on among them.
        soft_limit: seconds after which a task is interrupted. Prefork's alone, as all below.
        hard_limit: seconds after which its process is killed; the message is delivered again.
        max_tasks_per_child: tasks after which a process is replaced.
        max_memory_per_child: KiB of resident memory after which a process is replaced, between two tasks.
        autoscale: the most and the fewest processes.
    """

    kind: str = "threads"
    concurrency: int
    prefetch: int = 1
    soft_limit: int | None = None
    hard_limit: int | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    autoscale: tuple[int, int] | None = None

    @property
    def slots(self) -> int:
        """Tasks that it runs at once at the most."""
        return self.autoscale[0] if self.autoscale else self.concurrency

    @property
    def preforks_alone(self) -> dict[str, object]:
        """What is said here that threads cannot do."""
        names = ("soft_limit", "hard_limit", "max_tasks_per_child", "max_memory_per_child", "autoscale")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def of_kind(self, kind: str) -> "Pool":
        """The same as another kind of pool; one that is no prefork has nothing of prefork's."""
        kept = self if kind == "prefork" else Pool(concurrency=self.slots, prefetch=self.prefetch)
        return replace(kept, kind=kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a task is tried again that failed for a reason which may pass.

    Attributes:
        most: how often at the most; None: as long as the task's own patience lasts, which is time.
        first_wait: seconds before the first of them; doubled each time, with jitter, up to a minute.
    """

    most: int | None = None
    first_wait: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many replicas a worker has.

    Attributes:
        least: replicas that are always there.
        most: replicas at the most.
        queue_depth: messages in its queues for each replica.
        age: seconds that its queues may stand still with messages in them.
    """

    least: int
    most: int
    queue_depth: int
    age: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one process of a worker is given by whoever deploys it.

    Attributes:
        cpu: thousandths of a core that it can count on; it may take more.
        memory: MiB at the most.
        node: what its machine should have plenty of, `memory` or `network`, if it matters.
    """

    cpu: int = 100
    memory: int = 256
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker.

    Attributes:
        name: also its folder.
        tasks: the module that is the index of its tasks.
        queues: what it consumes.
        priority: the class that its process has as a whole, where something besides queues asks for one.
        health_port: TCP port of its health server.
        pool: how it runs its tasks where it has a process of its own.
        scaling: how many of these processes there are.
        room: what each of them is given.
        retries: how often its tasks are tried again.
        orchestration: the kind of execution it orchestrates, if it does.
        timers: `module:function` of the rounds that it makes on its own timer.
    """

    name: str
    tasks: str
    queues: tuple[str, ...]
    priority: Priority
    health_port: int
    pool: Pool
    scaling: Scaling
    room: Room = Room()
    retries: Retries = Retries()
    orchestration: Orchestration | None = None
    timers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """What one process holds: workers, and those of their queues that it consumes."""

    name: str
    workers: tuple[Worker, ...]
    queues: tuple[str, ...]
    pool: Pool
    health_port: int

    @property
    def task_modules(self) -> tuple[str, ...]:
        """Every module whose tasks this process registers."""
        return tuple(worker.tasks for worker in self.workers)

    def orchestrates(self, orchestration: Orchestration) -> bool:
        """Whether executions of that kind are orchestrated in this process."""
        mine = any(worker.orchestration == orchestration for worker in self.workers)
        return mine and orchestration.queue in self.queues

    def retries(self, queue: str) -> Retries:
        """How often what came on that queue is tried again."""
        rows = (worker.retries for worker in self.workers if queue in worker.queues)
        return next(rows, Retries())


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
        priority=Priority.HIGH,
        health_port=8080,
        pool=Pool(concurrency=8),
        scaling=Scaling(least=1, most=5, queue_depth=20, age=10),
        room=Room(node="network"),
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
            *WORKFLOW_QUEUES.values(),
        ),
        priority=Priority.DEFAULT,
        health_port=8081,
        pool=Pool(concurrency=16),
        scaling=Scaling(least=1, most=4, queue_depth=100, age=30),
        orchestration=Orchestration(
            is_api=False,
            source="general.pipeline:source_files",
            queue="celery",
            batch_queue="file_processing",
            callback_task="process_batch_callback",
            callback_queue="file_processing_callback",
        ),
        timers=("shared.workflows.sweep:sweep",),
    ),
    Worker(
        name="file_processing",
        tasks="file_processing.tasks",
        queues=("file_processing", "api_file_processing"),
        priority=Priority.LOW,
        health_port=8082,
        pool=Pool(concurrency=16),
        scaling=Scaling(least=1, most=10, queue_depth=16, age=120),
        # Answers of the backend with what is in documents, one for each slot.
        room=Room(cpu=250, memory=512, node="memory"),
    ),
    Worker(
        name="callback",
        tasks="callback.tasks",
        queues=("file_processing_callback", "api_file_processing_callback"),
        priority=Priority.HIGH,
        health_port=8083,
        pool=Pool(concurrency=8),
        scaling=Scaling(least=1, most=3, queue_depth=20, age=10),
        timers=("callback.reaper:sweep",),
    ),
)

WORKERS: Mapping[str, Worker] = MappingProxyType({worker.name: worker for worker in _WORKERS})

# A process of its own for each file: seconds well above a slice and the request in it, then it is killed.
_FILES_IN_PROCESSES = Pool(kind="prefork", concurrency=2, soft_limit=240, hard_limit=300)


def _with_queues(name: str, health_port: int, priorities: set[Priority], pool: Pool | None = None) -> Profile:
    """The profile of these classes: their queues, the workers that have any of them, and room for each of these."""
    wanted = {queue for queue, priority in QUEUES.items() if priority in priorities}
    workers = tuple(worker for worker in _WORKERS if wanted & set(worker.queues))
    queues = tuple(queue for worker in workers for queue in worker.queues if queue in wanted)
    room = Pool(concurrency=sum(worker.pool.concurrency for worker in workers))
    return Profile(name, workers, queues, pool or room, health_port)


_PROFILES = (
    *(Profile(worker.name, (worker,), worker.queues, worker.pool, worker.health_port) for worker in _WORKERS),
    _with_queues("all", 8084, set(Priority)),
    _with_queues("fast", 8085, {Priority.HIGH, Priority.DEFAULT}),
    _with_queues("slow", 8086, {Priority.LOW}, replace(_FILES_IN_PROCESSES, max_tasks_per_child=50)),
    _with_queues("high", 8087, {Priority.HIGH}),
    _with_queues("default", 8088, {Priority.DEFAULT}),
    _with_queues("low", 8089, {Priority.LOW}),
    Profile(
        "heavy",
        (WORKERS["file_processing"],),
        WORKERS["file_processing"].queues,
        replace(_FILES_IN_PROCESSES, max_memory_per_child=400_000, autoscale=(4, 1)),
        8090,
    ),
)

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _PROFILES})

BEAT_HEALTH_PORT = 8091
MONITOR_HEALTH_PORT = 8092

# Seconds after SIGTERM: by then a process has ended itself; and by then whoever told it to may kill it.
DRAIN_SECONDS = 10
GRACE_SECONDS = 30


def profile_named(name: str) -> Profile:
    """The profile of that name.

    Raises:
        UnknownProfileError: there is none; the message names the nearest. A typo must never start another worker.
    """
    if name not in PROFILES:
        raise UnknownProfileError(name)
    return PROFILES[name]


# Profiles that are deployed together: between them every queue has a consumer.
LAYOUTS: Mapping[str, tuple[Profile, ...]] = MappingProxyType(
    {
        name: tuple(map(profile_named, profiles))
        for name, profiles in {
            "workers": tuple(WORKERS),
            "heavy-files": ("api_deployment", "general", "heavy", "callback"),
            "fast-slow": ("fast", "slow"),
            "priorities": ("high", "default", "low"),
            "all-in-one": ("all",),
        }.items()
    }
)


def orchestration_of(*, is_api: bool) -> Orchestration:
    """The row for an execution of that kind."""
    rows = (worker.orchestration for worker in _WORKERS)
    return next(row for row in rows if row is not None and row.is_api is is_api)
