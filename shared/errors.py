"""The error tree. Each class says what comes next: `retry` is whether the same work may succeed later.

WorkerError
├── PayloadError                the message cannot be understood
├── OrchestrationError          the execution ended before its files started
├── PoisonError                 the processes that worked on it died
├── UndeliverableError          a webhook will never be delivered
├── DeadlineExceededError       (retry) the time for this piece of work is over
├── AnswerTooLargeError         the backend's answer is larger than we read
├── TransientError              (retry) something we depend on is away
│   ├── UndeliveredError            a webhook was not delivered, and is tried again
│   ├── BackendUnavailableError     no usable answer
│   │   ├── BackendUnreachableError     nobody answered for the backend
│   │   ├── BackendFailedError          the backend answered, and not as it should
│   │   ├── BackendBusyError            it asks us to come back later
│   │   └── CircuitOpenError            it was not asked: it did not answer before
│   ├── StateStoreError
│   └── BrokerError
└── BackendRefusedError         the backend understood us, and says no
    ├── UnauthorizedError       (retry)
    └── NotFoundError
"""

from typing import ClassVar


class HandBack(Exception):  # noqa: N818 # not an error: work that goes on in a later delivery
    """The task has held its slot long enough, or its work is another's; its message goes to the tail of its queue."""


class AlreadyDone(Exception):  # noqa: N818 # not an error either: a copy of a message
    """The work was done by another delivery; there is nothing left to do."""


class WorkerError(Exception):
    """Anything that a worker expects to go wrong."""

    retry: ClassVar[bool] = False


class PayloadError(WorkerError):
    """A message, or a part of one, that does not have the contract's shape."""


class OrchestrationError(WorkerError):
    """An execution ended before its files started; the reason is what its owner reads."""


class PoisonError(WorkerError):
    """Too many processes have died while they worked on this; the message says how many."""


class UndeliverableError(WorkerError):
    """A webhook that will never be delivered; the message names the host at most, since the rest may be secret.

    Attributes:
        reason: refused (by us: an address or a redirect), rejected (by the receiver) or exhausted (the retries).
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)  # both, so that it crosses from one process to another
        self.message, self.reason = message, reason

    def __str__(self) -> str:
        return self.message


class DeadlineExceededError(WorkerError):
    """The time for this piece of work is over; the message says which steps spent it."""

    retry = True


class AnswerTooLargeError(WorkerError):
    """The backend's answer is larger than INTERNAL_API_MAX_RESPONSE_BYTES; it would be the same again."""


class TransientError(WorkerError):
    """Something we depend on is away; the same work may succeed later."""

    retry = True


class BackendUnavailableError(TransientError):
    """There is no usable answer of the backend. Of this class itself: we did not give it the time or the connection."""


class BackendUnreachableError(BackendUnavailableError):
    """Nobody answered for the backend: no connection, no answer in time, or a proxy's 502, 503 or 504."""


class BackendFailedError(BackendUnavailableError):
    """The backend answered 5xx, or what no backend of ours would. An unknown id is enough for a 500."""


class _LaterError(BackendUnavailableError):
    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message, retry_after)  # both, so that it crosses from one process to another
        self.message, self.retry_after = message, retry_after

    def __str__(self) -> str:
        return self.message


class BackendBusyError(_LaterError):
    """The backend is up and asks us to come back later.

    Attributes:
        retry_after: seconds the backend asked us to wait, or None where it did not say.
        status: the HTTP status.
    """

    def __init__(self, message: str, retry_after: float | None, status: int = 503) -> None:
        super().__init__(message, retry_after)
        self.args, self.status = (message, retry_after, status), status


class CircuitOpenError(_LaterError):
    """The backend was not asked, since it did not answer before; nothing was sent.

    Attributes:
        retry_after: seconds until it is asked again.
    """

    retry_after: float


class UndeliveredError(TransientError):
    """A webhook was not delivered, and will be tried again.

    Attributes:
        wait: seconds until then.
    """

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message, wait)
        self.message, self.wait = message, wait

    def __str__(self) -> str:
        return self.message


class StateStoreError(TransientError):
    """The state store (Redis) could not be asked."""


class BrokerError(TransientError):
    """A message could not be handed to the broker."""


class BackendRefusedError(WorkerError):
    """The backend understood the request and refuses it: a 4xx, which no retry will change.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)  # both, so that it crosses from one process to another
        self.message, self.status = message, status

    def __str__(self) -> str:
        return self.message


class UnauthorizedError(BackendRefusedError):
    """The backend does not accept INTERNAL_SERVICE_API_KEY. It may soon: keys are rotated on one side first."""

    retry = True


class NotFoundError(BackendRefusedError):
    """The backend has no such row, or none that this organization may see."""
