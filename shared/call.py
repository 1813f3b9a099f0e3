"""One delivery of a task: what its function needs besides the contract's arguments."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import kombu.exceptions
from amqp.exceptions import AMQPError
from pydantic import BaseModel
from redis import RedisError

from config.queue_routing import DEAD_LETTERS
from config.workers import Profile
from monitoring.prometheus_metrics import MESSAGES_DROPPED
from shared.api_client import OrganizationAPI
from shared.application import Application
from shared.claims import Claims, Lease
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import BrokerError, StateStoreError
from shared.execution_state import ExecutionState
from shared.lifecycle import Resources
from shared.logging_utils import get_logger
from shared.task_metrics import number, queue_label

log = get_logger(__name__)

# All the ways in which a broker does not take a message; kombu translates only some of them.
_UNSENT = (kombu.exceptions.OperationalError, AMQPError, RedisError, OSError)

FIRST_TRIED = "first_tried"  # header: when a message that is retried was first delivered
SENDS = "sends"  # header: how often a webhook was sent, as far as that is known
_OF_THIS_TRY = {FIRST_TRIED, SENDS}


@contextmanager
def sending(task: str, queue: str) -> Iterator[None]:
    """Send that task in this block: what a broker does not take is a BrokerError."""
    try:
        yield
    except _UNSENT as error:
        raise BrokerError(f"{task} could not be sent to {queue}: {error}") from error


class WorkerApp(Application):
    """The Celery application, with what its tasks need."""

    events_cls = "shared.events:Events"
    profile: Profile
    resources: Resources


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
        retries: how often the message was retried before; a hand-back is none.
        sends: how often a webhook was sent before; what failed without reaching its receiver is none.
        lease: the right to do this work, where it is one piece of work however often its message comes.
    """

    app: WorkerApp
    task: str
    task_id: str
    queue: str
    headers: Mapping[str, Any]
    slice: Deadline
    deadline: Deadline
    retries: int = 0
    sends: int = 0
    lease: Lease | None = None

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        return self.app.resources.settings

    @property
    def age(self) -> float:
        """Seconds since the message was first delivered: 0 for its first delivery."""
        now = time.time()
        return now - number(self.headers, FIRST_TRIED, now)

    @property
    def stopping(self) -> threading.Event:
        """Set once the process was told to stop: long work hands itself back then."""
        return self.app.resources.stopping

    @property
    def state(self) -> ExecutionState:
        """The state store."""
        return self.app.resources.state

    @property
    def claims(self) -> Claims:
        """The leases of this process."""
        return self.app.resources.claims

    def under(self, lease: Lease) -> "Call":
        """The same, for as long as the lease holds: no request is sent beyond that."""
        return replace(self, lease=lease, deadline=replace(self.deadline, guard=lease.check))

    def settle(self, *, done: bool) -> None:
        """Give the lease back, with the work done or not. A lease that cannot be given back ends by itself."""
        if self.lease is None:
            return
        try:
            (self.claims.finish if done else self.claims.release)(self.lease)
        except StateStoreError as error:
            log.warning("lease_not_given_back", work=self.lease.claim.what, reason=str(error))

    def progressed(self) -> None:
        """Say that some of the work is done: whatever kills this process next is another mishap."""
        if self.lease is not None:
            self.claims.progressed(self.lease)

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
        with sending(task, queue):
            self.app.send_task(task, args=args, kwargs=dict(kwargs or {}), queue=queue, **options)


def note_unknown(model: type[BaseModel], arguments: Mapping[str, Any]) -> None:
    """Log the keyword arguments of a message that nobody here knows: its sender is newer than we are."""
    unknown = sorted(arguments.keys() - model.model_fields.keys())
    if unknown:
        log.warning("unknown_arguments", names=unknown)


def bury(call: Call, error: Exception, /, *args: Any, **kwargs: Any) -> None:
    """Keep a message that failed for good, with its reason, where people find it.

    Its work is not done: who sends it again, after a remedy, is to be heard.
    """
    call.settle(done=False)
    headers = {name: value for name, value in call.headers.items() if name not in _OF_THIS_TRY}
    headers |= {"kept_from": call.queue, "kept_because": str(error)}
    log.error("message_kept", queue=call.queue, reason=str(error))
    call.send(call.task, DEAD_LETTERS, list(args), kwargs, headers=headers, task_id=call.task_id)
    MESSAGES_DROPPED.inc(name=call.task, queue_name=queue_label(call.queue), reason="failed")
