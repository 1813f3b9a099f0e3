"""Retry as a value: how often, how long, and what for. Over tenacity (https://tenacity.readthedocs.io)."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from shared.deadline import Deadline
from shared.errors import BackendBusyError, BackendUnavailableError

T = TypeVar("T")


def jittered(first: float, attempt: int, cap: float) -> float:
    """Seconds to wait after that attempt (1 for the first): doubled each time, capped, full jitter.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random.uniform(0, min(cap, first * 2.0 ** min(attempt - 1, 60)))  # noqa: S311 # spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How one request is repeated.

    Attributes:
        attempts: sends in total.
        first_wait: seconds before the second send at most; doubled each time, full jitter.
        longest_wait: seconds; a Retry-After beyond it is not waited out, the error goes up instead.
    """

    attempts: int
    first_wait: float
    longest_wait: float = 10.0

    def run(self, send: Callable[[], T], deadline: Deadline) -> T:
        """Send until it works, the attempts are used up, or the next wait would not fit the deadline.

        Raises:
            the last error, as it was.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BackendUnavailableError),
            wait=self._wait,
            stop=lambda state: self._used_up(state, deadline),
            reraise=True,
        )
        return retrying(send)

    def _used_up(self, state: tenacity.RetryCallState, deadline: Deadline) -> bool:
        wait = state.upcoming_sleep
        return state.attempt_number >= self.attempts or wait > self.longest_wait or wait >= deadline.remaining

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        wait = jittered(self.first_wait, state.attempt_number, self.longest_wait)
        if isinstance(error, BackendBusyError) and error.retry_after is not None:
            return error.retry_after + wait
        return wait
