"""The retry policy by a clock of our own: how often, how long between, and what for."""

from collections.abc import Callable

import pytest

from shared.deadline import Deadline
from shared.errors import (
    AnswerTooLargeError,
    BackendBusyError,
    BackendFailedError,
    BackendRefusedError,
    BackendUnavailableError,
    BackendUnreachableError,
    CircuitOpenError,
    DeadlineExceededError,
    UnauthorizedError,
    WorkerError,
)
from shared.retry_utils import RetryPolicy, jittered


class Time:
    """A clock that waits move."""

    def __init__(self) -> None:
        self.now, self.waits = 50.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Sends:
    """Ends as its test wrote, the last way for ever."""

    def __init__(self, *ends: WorkerError | str) -> None:
        self.ends, self.count = list(ends), 0

    def __call__(self) -> str:
        self.count += 1
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if isinstance(end, WorkerError):
            raise end
        return end


AWAY = BackendUnreachableError("away")


def run(
    sends: Callable[[], str], time: Time, seconds: float = 30.0, attempts: int = 3, first_wait: float = 1.0
) -> tuple[str, Deadline]:
    deadline = Deadline.after(seconds, "work", time)
    return RetryPolicy(attempts, first_wait, sleep=time.sleep).run(sends, deadline), deadline


def test_what_works_is_sent_once() -> None:
    time, sends = Time(), Sends("answer")
    assert run(sends, time)[0] == "answer"
    assert (sends.count, time.waits) == (1, [])


@pytest.mark.parametrize("error", [AWAY, BackendFailedError("500"), BackendBusyError("busy", None)])
def test_what_may_pass_is_sent_again(error: WorkerError) -> None:
    sends = Sends(error, error, "answer")
    assert run(sends, Time())[0] == "answer"
    assert sends.count == 3


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_are_sends_in_total(attempts: int) -> None:
    time, sends = Time(), Sends(AWAY)
    with pytest.raises(BackendUnreachableError) as caught:
        run(sends, time, attempts=attempts)
    assert caught.value is AWAY
    assert (sends.count, len(time.waits)) == (attempts, attempts - 1)


@pytest.mark.parametrize(
    "error",
    [
        BackendRefusedError("no", 400),
        UnauthorizedError("key", 401),
        CircuitOpenError("not asked", 0.1),
        AnswerTooLargeError("large"),
        DeadlineExceededError("late"),
    ],
)
def test_what_will_not_pass_here_is_not_sent_again(error: WorkerError) -> None:
    sends = Sends(error, "answer")
    with pytest.raises(type(error)):
        run(sends, Time())
    assert sends.count == 1


def test_waits_double_with_full_jitter() -> None:
    seen: list[list[float]] = []
    for _ in range(300):
        time = Time()
        with pytest.raises(BackendUnavailableError):
            run(Sends(AWAY), time, seconds=1_000, attempts=6)
        seen.append(time.waits)
    for number, most in enumerate((1, 2, 4, 8, 10)):
        waits = [waits[number] for waits in seen]
        assert max(waits) <= most
        assert max(waits) > most * 0.9
        assert min(waits) < most * 0.1


def test_the_wait_the_backend_asked_for_comes_on_top() -> None:
    time = Time()
    run(Sends(BackendBusyError("busy", 4.0), "answer"), time)
    assert 4 <= time.waits[0] <= 5


@pytest.mark.parametrize("asked", [10.5, 86_400, float("inf")])
def test_a_wait_beyond_the_bound_is_not_waited_out(asked: float) -> None:
    time, sends = Time(), Sends(BackendBusyError("busy", asked), "answer")
    with pytest.raises(BackendBusyError):
        run(sends, time, seconds=1_000_000)
    assert (sends.count, time.waits) == (1, [])


def test_a_wait_that_would_not_leave_time_to_send_is_not_begun() -> None:
    time, sends = Time(), Sends(BackendBusyError("busy", 5.0), "answer")
    with pytest.raises(BackendBusyError):
        run(sends, time, seconds=5)
    assert (sends.count, time.waits) == (1, [])
    assert run(Sends(BackendBusyError("busy", 5.0), "answer"), Time(), seconds=6.1)[0] == "answer"


def test_nothing_is_sent_after_a_wait_that_was_cut_short() -> None:
    sends = Sends(AWAY, "answer")
    policy = RetryPolicy(3, 1.0, sleep=lambda _seconds: True)
    with pytest.raises(BackendUnreachableError) as caught:
        policy.run(sends, Deadline.after(30, "work", Time()))
    assert (caught.value, sends.count) == (AWAY, 1)


def test_the_bounds_belong_to_what_is_still_waited_and_to_what_is_not() -> None:
    longest = Sends(BackendBusyError("busy", 10.0), "answer")
    assert run(longest, Time(), first_wait=0)[0] == "answer"
    to_the_end = Sends(BackendBusyError("busy", 5.0), "answer")
    with pytest.raises(BackendBusyError):
        run(to_the_end, Time(), seconds=5, first_wait=0)


def test_the_waits_are_charged_to_the_deadline() -> None:
    time = Time()
    _, deadline = run(Sends(BackendBusyError("busy", 3.0), "answer"), time)
    assert deadline.spent == pytest.approx({"waiting to send again": time.waits[0]})


def test_each_wait_is_announced_with_its_reason() -> None:
    time, said = Time(), list[tuple[BaseException | None, float]]()
    policy = RetryPolicy(3, 1.0, sleep=time.sleep, before_wait=lambda *announced: said.append(announced))
    with pytest.raises(BackendUnreachableError):
        policy.run(Sends(AWAY), Deadline.after(30, "work", time))
    assert said == [(AWAY, time.waits[0]), (AWAY, time.waits[1])]


def test_jitter_has_bounds_that_large_numbers_do_not_break() -> None:
    assert all(0 <= jittered(1.0, 10_000, 7.0) <= 7 for _ in range(100))
    assert jittered(0.0, 5, 10.0) == 0
    assert max(jittered(2.0, 1, 60.0) for _ in range(500)) <= 2
