"""Retry as a value: how often, how long, and what for. Over tenacity (https://tenacity.readthedocs.io)."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from shared.deadline import Deadline
from shared.errors import BackendBusyError, BackendUnavailableError, CircuitOpenError

T = TypeVar("T")


def jittered(first: float, attempt: int, cap: float) -> float:
    """Seconds to wait after that attempt (1 for the first): doubled each time, capped, full jitter.

    Sixty doublings exceed any cap, and are far from what a float cannot hold.

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
        sleep: how to wait; true if the wait was cut short, as `Event.wait` says when the process stops: then nothing
            more is sent.
        before_wait: hears of each failed attempt that another will follow, and of the seconds until then.
    """

    attempts: int
    first_wait: float
    longest_wait: float = 10.0
    sleep: Callable[[float], object] = time.sleep
    before_wait: Callable[[BaseException | None, float], None] = lambda _error, _seconds: None

    def run(self, send: Callable[[], T], deadline: Deadline) -> T:
        """Send until it works, the attempts are used up, or the next wait would not fit the deadline.

        An open circuit is not tried again here: the next attempt would not be sent either.

        Raises:
            the last error, as it was.
        """
        try:
            return send()
        except BackendUnavailableError as error:
            failed = [error]

        def again() -> T:
            if failed:
                raise failed.pop()
            return send()

        # Made for what failed once: it costs a twentieth of a request, and few need it.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=self._wait,
            stop=lambda state: self._used_up(state, deadline),
            before_sleep=lambda state: self._wait_out(state, deadline),
            sleep=_waited_already,
            reraise=True,
        )
        return retrying(again)

    def _used_up(self, state: tenacity.RetryCallState, deadline: Deadline) -> bool:
        wait = state.upcoming_sleep
        return state.attempt_number >= self.attempts or wait > self.longest_wait or wait >= deadline.remaining

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = _error_of(state)
        wait = jittered(self.first_wait, state.attempt_number, self.longest_wait)
        if isinstance(error, BackendBusyError) and error.retry_after is not None:
            return error.retry_after + wait
        return wait

    def _wait_out(self, state: tenacity.RetryCallState, deadline: Deadline) -> None:
        error = _error_of(state)
        self.before_wait(error, state.upcoming_sleep)
        with deadline.step("waiting to send again"):
            cut_short = self.sleep(state.upcoming_sleep)
        if cut_short and error is not None:
            raise error


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    # For tenacity's types alone: when a wait is computed, there is an outcome, and it is an error.
    return state.outcome.exception() if state.outcome else None


def _waited_already(_seconds: float) -> None:
    """The hook before the sleep waits instead: it knows for what, and may end the retry."""


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, BackendUnavailableError) and not isinstance(error, CircuitOpenError)
