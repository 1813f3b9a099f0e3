"""The one seam round every task: log context, metrics, and a typed error becomes a retry or a failure.

Task bodies are plain functions `(call, *contract arguments) -> contract return`, without a try, marked by `task`.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn, Protocol

import kombu.exceptions
from amqp.exceptions import AMQPError
from celery import Celery, Task
from celery.exceptions import Reject
from pydantic import BaseModel
from redis import RedisError

from config.queue_routing import DEAD_LETTERS
from config.workers import Profile
from monitoring.prometheus_metrics import TASK_SECONDS, TASKS
from shared.api_client import OrganizationAPI
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import BrokerError, CircuitOpenError, TransientError, WorkerError
from shared.execution_state import ExecutionState
from shared.lifecycle import Resources
from shared.logging_utils import fresh_context, get_logger
from shared.retry_utils import jittered

log = get_logger(__name__)

_FIRST_WAIT = 2.0
_LONGEST_WAIT = 60.0
_FIRST_TRIED = "first_tried"  # header: when a message that is retried was first delivered
# All the ways in which a broker does not take a message; kombu translates only some of them.
_UNSENT = (kombu.exceptions.OperationalError, AMQPError, RedisError, OSError)


class HandBack(Exception):  # noqa: N818 # not an error: work that goes on in a later delivery
    """The task has held its slot long enough; its message goes to the tail of its queue."""


@dataclass(frozen=True, slots=True)
class Call:
    """One delivery of a task: what its function needs besides the contract's arguments.

    Attributes:
        app: the application, to send other tasks by name.
        task: the task's name.
        task_id: the same for every delivery, retry and hand-back of one message.
        queue: where the message came from.
        headers: what its sender wrote beside the payload.
        slice: how long it may work on, or wait, before it hands its message back.
        deadline: when this delivery must end; it cuts every request to the backend.
    """

    app: "WorkerApp"
    task: str
    task_id: str
    queue: str
    headers: Mapping[str, Any]
    slice: Deadline
    deadline: Deadline

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        return self.app.resources.settings

    @property
    def stopping(self) -> threading.Event:
        """Set once the process was told to stop: long work hands itself back then."""
        return self.app.resources.stopping

    @property
    def state(self) -> ExecutionState:
        """The state store."""
        return self.app.resources.state

    def backend(self, organization_id: str) -> OrganizationAPI:
        """The internal API for that organization, until the deadline of this delivery."""
        return self.app.resources.client.for_organization(organization_id, self.deadline)

    def send(
        self, task: str, queue: str, args: list[Any], kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Send a task by its name.

        Raises:
            BrokerError: the broker did not take it within its bounded retries.
        """
        try:
            self.app.send_task(task, args=args, kwargs=dict(kwargs or {}), queue=queue, **options)
        except _UNSENT as error:
            raise BrokerError(f"{task} could not be sent to {queue}: {error}") from error


def note_unknown(model: type[BaseModel], arguments: Mapping[str, Any]) -> None:
    """Log the keyword arguments of a message that nobody here knows: its sender is newer than we are."""
    unknown = sorted(arguments.keys() - model.model_fields.keys())
    if unknown:
        log.warning("unknown_arguments", names=unknown)


def bury(call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None:
    """Keep a message that failed for good, with its reason, where people find it."""
    headers = {**call.headers, "kept_from": call.queue, "kept_because": str(error)}
    log.error("message_kept", queue=call.queue, reason=str(error))
    call.send(call.task, DEAD_LETTERS, list(args), kwargs, headers=headers, task_id=call.task_id)


class WorkerApp(Celery):  # type: ignore[misc] # Celery ships no types
    """The Celery application, with what its tasks need."""

    profile: Profile
    resources: Resources


class Finalizer(Protocol):
    """What a task does when it has failed for good: whatever is folded from it must still come to an end."""

    def __call__(self, call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Definition:
    """A task before there is an application.

    Attributes:
        names: what its messages call it.
        function: takes a `Call`, then the contract's arguments.
        finalizer: what ends it when it has failed for good.
        patience: seconds from the first delivery in which a transient error is retried.
        sliced: whether one delivery ends with its slice, and one request; others have TASK_DEADLINE_SECONDS.
    """

    names: tuple[str, ...]
    function: Callable[..., Any]
    finalizer: Finalizer
    patience: float
    sliced: bool


def task(
    *names: str, finalizer: Finalizer = bury, patience: float = math.inf, sliced: bool = False
) -> Callable[[Callable[..., Any]], Definition]:
    """Mark a function as a task under these names: `Definition` says what the arguments are."""

    def mark(function: Callable[..., Any]) -> Definition:
        return Definition(names, function, finalizer, patience, sliced)

    return mark


def register(app: WorkerApp, module: ModuleType) -> None:
    """Register every task of a module with the application."""
    for definition in vars(module).values():
        if isinstance(definition, Definition):
            # Not shared: Celery would register it with every other application of the process too.
            options = {"base": _Seam, "definition": definition, "shared": False}
            for name in definition.names:
                app.task(definition.function, name=name, **options)


class _Seam(Task):  # type: ignore[misc] # Celery ships no types
    abstract = True
    typing = False  # the payload's model checks the arguments, and the first of them is ours
    max_retries = None  # it is time that ends retries here, and never those of a finalizer
    definition: Definition

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._call()
        with fresh_context(task=self.name, task_id=call.task_id), _measured(call) as ended:
            try:
                result = self._run(call, args, kwargs)
            except HandBack as reason:
                self._hand_back()
                ended(outcome="handed_back", reason=str(reason))
                return None
            except Exception as error:
                if _transient(error) and self._patient(call):
                    ended(outcome="retried", reason=str(error))
                    self._retry(error)
                ended(reason=str(error))
                self._finalize(call, error, args, kwargs)
                raise
            ended(outcome="succeeded")
            return result

    def _call(self) -> Call:
        request, settings = self.request, self.app.resources.settings
        sliced = settings.batch_slice + settings.backend_timeout
        seconds = sliced if self.definition.sliced else settings.task_deadline
        return Call(
            app=self.app,
            task=self.name,
            task_id=request.id,
            queue=(request.delivery_info or {}).get("routing_key") or "",
            headers=request.headers or {},
            slice=Deadline.after(settings.batch_slice, "the slice"),
            deadline=Deadline.after(seconds, self.name),
        )

    def _run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run; while the circuit is open, wait in the slot, up to the end of the slice.

        A retry with a countdown would free the slot for the next message, which fails as fast: one process takes and
        publishes a whole queue within seconds. What ran before the wait runs again, as after any redelivery.
        """
        while True:
            try:
                return self.run(call, *args, **kwargs)
            except CircuitOpenError as circuit:
                if not self._patient(call):
                    raise
                with call.deadline.step("waiting for the circuit to close"):
                    stopped = call.stopping.wait(call.slice.cut(circuit.retry_after))
                if stopped or call.slice.over:
                    raise HandBack(str(circuit)) from circuit

    def _patient(self, call: Call) -> bool:
        now = time.time()
        return now - float(call.headers.get(_FIRST_TRIED, now)) < self.definition.patience

    def _finalize(self, call: Call, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self.definition.finalizer(call, error, *args, **kwargs)
        except TransientError as unreachable:
            log.warning("finalizer_postponed", reason=str(unreachable))
            self._retry(error)

    def _retry(self, error: Exception) -> NoReturn:
        wait = jittered(_FIRST_WAIT, self.request.retries + 1, _LONGEST_WAIT)
        try:
            self.retry(exc=error, countdown=wait, headers=self._dated_headers())
        except Reject as unsent:
            # Celery would drop the message here: its retry could not be published.
            raise Reject(unsent.reason, requeue=True) from error
        raise AssertionError  # pragma: no cover # retry always raises

    def _dated_headers(self) -> dict[str, Any]:
        return {_FIRST_TRIED: time.time(), **(self.request.headers or {})}

    def _hand_back(self) -> None:
        try:
            self.signature_from_request(self.request, headers=self._dated_headers()).apply_async()
        except _UNSENT as error:
            raise Reject(error, requeue=True) from error


def _transient(error: Exception) -> bool:
    return isinstance(error, WorkerError) and error.retry


@contextmanager
def _measured(call: Call) -> Iterator[Callable[..., None]]:
    """Count one outcome for a delivery, `failed` unless told otherwise, and log it."""
    started = time.monotonic()
    outcome: dict[str, Any] = {"outcome": "failed"}
    try:
        yield lambda **said: outcome.update(said)
    finally:
        seconds = time.monotonic() - started
        TASKS.labels(call.task, call.queue, outcome["outcome"]).inc()
        TASK_SECONDS.labels(call.task).observe(seconds)
        log.info("task_ended", queue=call.queue, seconds=round(seconds, 3), **outcome)
