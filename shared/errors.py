"""The error tree. Each class says what comes next: `retry` is whether the same work may succeed later.

WorkerError
├── PayloadError            the message cannot be understood
├── OrchestrationError      the execution ended before its files started
├── DeadlineExceededError   the time for this piece of work is over
├── TransientError          (retry) something we depend on is away
│   ├── BackendUnavailableError
│   │   └── BackendBusyError    says when to come back
│   ├── StateStoreError
│   └── BrokerError
└── BackendRefusedError     the backend understood us, and says no
    ├── UnauthorizedError   (retry)
    └── NotFoundError
"""

from typing import ClassVar


class WorkerError(Exception):
    """Anything that a worker expects to go wrong."""

    retry: ClassVar[bool] = False


class PayloadError(WorkerError):
    """A message, or a part of one, that does not have the contract's shape."""


class OrchestrationError(WorkerError):
    """An execution ended before its files started; the reason is what its owner reads."""


class DeadlineExceededError(WorkerError):
    """The time for this piece of work is over."""


class TransientError(WorkerError):
    """Something we depend on is away; the same work may succeed later."""

    retry = True


class BackendUnavailableError(TransientError):
    """The backend did not answer, answered 5xx, or answered what no backend of ours would."""


class BackendBusyError(BackendUnavailableError):
    """The backend is up and asks us to come back later.

    Attributes:
        retry_after: seconds the backend asked us to wait, or None where it did not say.
    """

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message, retry_after)  # both, so that it crosses from one process to another
        self.message, self.retry_after = message, retry_after

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
