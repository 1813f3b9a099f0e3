"""The one seam round every task: log context, leases, metrics, and a typed error becomes a retry or a failure.

Task bodies are plain functions `(call, *contract arguments) -> contract return`, without a try, marked by `task`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, NoReturn, Protocol, TypeVar

from celery import Task
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded

from config.workers import Retries
from shared.call import FIRST_TRIED, SENDS, Call, WorkerApp, bury
from shared.claims import Claim, Lease
from shared.deadline import Deadline
from shared.delays import send_later
from shared.errors import (
    AlreadyDone,
    CircuitOpenError,
    HandBack,
    PoisonError,
    UndeliverableError,
    UndeliveredError,
    WorkerError,
)
from shared.logging_utils import begin_context, bind_context, get_logger
from shared.outcome import measured
from shared.passage import carrying, passage_of, trace_id
from shared.retry_utils import jittered
from shared.task_metrics import SENT_AT, number
from shared.tracing import Say, span

T = TypeVar("T")

log = get_logger(__name__)

_LONGEST_WAIT = 60.0
_LONGEST_LOOK = 1.0  # between two looks at a lease that is another's


class Finalizer(Protocol):
    """What a task does when it has failed for good: whatever is folded from it must still come to an end."""

    def __call__(self, call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None: ...


class Work(Protocol):
    """Names the piece of work that a message is."""

    def __call__(self, call: Call, /, *args: Any, **kwargs: Any) -> Claim | None: ...


class About(Protocol):
    """Says what a message is about, for the log: any of its ids that are where the contract has them."""

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> Mapping[str, Any]: ...


def by_name(_args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What most messages are about: whatever their own arguments name."""
    return {name: kwargs.get(name) for name in ("execution_id", "organization_id")}


def anew(_call: Call, /, *_args: Any, **_kwargs: Any) -> None:
    """Work that may be done twice."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A task before there is an application.

    Attributes:
        names: what its messages call it.
        function: takes a `Call`, then the contract's arguments.
        finalizer: what ends it when it has failed for good.
        patience: seconds from the first delivery in which a transient error is retried.
        sliced: whether one delivery ends with its slice, and one request; others have TASK_DEADLINE_SECONDS.
        work: names the piece of work that a message is, so that it is done once; None for what may be done twice.
        about: what every line of its log carries, by its arguments, which nobody has looked at yet.
    """

    names: tuple[str, ...]
    function: Callable[..., Any]
    finalizer: Finalizer
    patience: float
    sliced: bool
    work: "Work"
    about: About


def task(
    *names: str,
    finalizer: Finalizer = bury,
    patience: float = math.inf,
    sliced: bool = False,
    work: Work = anew,
    about: About = by_name,
) -> Callable[[Callable[..., Any]], Definition]:
    """Mark a function as a task under these names: `Definition` says what the arguments are."""

    def mark(function: Callable[..., Any]) -> Definition:
        return Definition(names, function, finalizer, patience, sliced, work, about)

    return mark


def definitions(module: ModuleType) -> dict[str, Definition]:
    """The tasks of a module by name."""
    found = [value for value in vars(module).values() if isinstance(value, Definition)]
    return {name: definition for definition in found for name in definition.names}


def register(app: WorkerApp, module: ModuleType) -> None:
    """Register every task of a module with the application."""
    for name, definition in definitions(module).items():
        # Not shared: Celery would register it with every other application of the process too.
        app.task(definition.function, name=name, base=_Seam, definition=definition, shared=False)


class _Seam(Task):  # type: ignore[misc] # Celery ships no types
    abstract = True
    typing = False  # the payload's model checks the arguments, and the first of them is ours
    max_retries = None  # it is time that ends retries here, and never those of a finalizer
    definition: Definition

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._call()
        with self._known(call, args, kwargs) as say, measured(call, say) as ended:
            leased, error = tried(lambda: self._leased(call, args, kwargs))
            call = leased or call
            if error is None:
                result, error = tried(lambda: self._run(call, args, kwargs))
            if error is None:
                call.settle(done=True)
                ended(outcome="succeeded")
                return result
            outcome = self._outcome(call, error, args, kwargs)
            ended(outcome=outcome, reason=str(error), error=type(error).__name__)
            call.settle(done=outcome == "failed")
            if outcome in {"failed", "unfinished"}:
                raise error
            if outcome == "retried":
                self._retry(error)
            if outcome == "handed_back":
                self._hand_back()
            return None

    @contextmanager
    def _known(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Say]:
        """Have each line say what it is about, and all that is sent whose request it is.

        The lines' context ends with `task_postrun`, for Celery's own line about a failure comes after this.
        """
        passage = passage_of(self.request.headers, self.request.root_id, self.request.id)
        begin_context(
            task=self.name,
            task_id=call.task_id,
            request_id=passage.request_id,
            **self.definition.about(args, kwargs),
        )
        with carrying(passage), span("CONSUMER", f"run {self.name}", queue=call.queue) as say:
            bind_context(trace_id=trace_id())
            yield say

    def _leased(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Take the lease on the work that this message is, if it is one.

        While another delivery is at it, wait in the slot: that one may have no message any more, and die.
        """
        claim = self.definition.work(call, *args, **kwargs)
        if claim is None:
            return call
        while not isinstance(taken := call.claims.take(claim), Lease):
            if taken is None:
                raise AlreadyDone(f"{claim.what} is done")
            with call.deadline.step("waiting for another delivery"):
                stopped = call.stopping.wait(call.slice.cut(min(taken.seconds, _LONGEST_LOOK)))
            if stopped or call.slice.over:
                raise HandBack(f"{claim.what} is being done by another delivery")
        return call.under(taken)

    def _outcome(self, call: Call, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """What an error means for the message. What failed for good goes through its finalizer here."""
        if isinstance(error, AlreadyDone):
            return "duplicate"
        if isinstance(error, HandBack):
            return "handed_back"
        if _transient(error) and self._patient(call):
            return "retried"
        return self._finalized(call, error, args, kwargs)

    def _finalized(self, call: Call, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """What comes of a finalizer. If it fails for good too, the message is kept for people.

        It would be lost otherwise, and its lease renewed for as long as the process lives.
        """
        for end in (self.definition.finalizer, bury):
            _, failed = tried(partial(end, call, error, *args, **kwargs))
            if isinstance(failed, HandBack):
                return "handed_back"
            if failed is not None and _transient(failed):
                log.warning("finalizer_postponed", reason=str(failed))
                return "retried"
            if failed is None:
                return "failed"
            log.warning("finalizer_failed", error=type(failed).__name__)
        return "unfinished"

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
            retries=request.retries,
            sends=int(number(request.headers or {}, SENDS, 0)),
        )

    def _run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run; while the circuit is open, wait in the slot, up to the end of the slice.

        A retry with a countdown would free the slot for the next message, which fails as fast: one process takes and
        publishes a whole queue within seconds. What ran before the wait runs again, as after any redelivery.
        """
        if call.lease is not None and call.lease.deliveries > call.settings.most_deliveries:
            raise PoisonError(
                f"{call.lease.deliveries - 1} processes have died while they worked on this; it is not tried again"
            )
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
        most = self._retries(call).most
        if most is not None and call.retries >= most:
            return False
        # What belongs to an execution is not tried for longer than one may take; then its end must come otherwise.
        return call.age < min(self.definition.patience, call.settings.execution_deadline)

    def _retries(self, call: Call) -> Retries:
        return self.app.profile.retries(call.queue)  # type: ignore[no-any-return] # Celery ships no types

    def _retry(self, error: Exception) -> NoReturn:
        call = self._call()
        wait = jittered(self._retries(call).first_wait, self.request.retries + 1, _LONGEST_WAIT)
        wait = error.wait if isinstance(error, UndeliveredError) else wait
        headers = self._dated_headers() | {SENT_AT: time.time() + wait}
        if isinstance(error, UndeliveredError | UndeliverableError):
            headers[SENDS] = int(number(headers, SENDS, 0)) + 1
        again = self.signature_from_request(self.request, headers=headers, retries=self.request.retries + 1)
        _, unsent = tried(lambda: send_later(again, call.queue, wait, self.app.resources.settings))
        if unsent is not None:
            raise Reject(unsent, requeue=True) from error
        # Only now is this delivery acknowledged: a process that dies in between leaves two messages, and never none.
        raise Retry(exc=error, when=wait)

    def _dated_headers(self) -> dict[str, Any]:
        # What the broker wrote about the way of this delivery (x-death) is not the next one's.
        sent = {name: value for name, value in (self.request.headers or {}).items() if not name.startswith("x-")}
        return {FIRST_TRIED: time.time(), **sent}

    def _hand_back(self) -> None:
        again = self.signature_from_request(self.request, headers=self._dated_headers())
        _, unsent = tried(again.apply_async)
        if unsent is not None:
            raise Reject(unsent, requeue=True) from unsent


def tried(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What a piece of work gives, or how it failed: the one place in which everything is caught."""
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 # whatever it is, its message must end somewhere
        return None, error


def _transient(error: Exception) -> bool:
    # Interrupted at its soft limit, beyond every deadline of ours: something hung, and may not the next time.
    return isinstance(error, SoftTimeLimitExceeded) or (isinstance(error, WorkerError) and error.retry)
