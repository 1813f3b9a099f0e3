"""The circuit breaker by a clock of our own: what opens it, what does not, and how it closes again."""

import threading
from collections.abc import Callable, Iterable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from interlock._state_machine import StateMachine
from interlock.config import Config
from interlock.outcome import Outcome as Theirs
from interlock.state import State
from interlock.window import WindowType

from shared.circuit_breaker import BreakerPolicy, CircuitBreaker, Outcome
from shared.errors import (
    BackendFailedError,
    BackendRefusedError,
    BackendUnavailableError,
    BackendUnreachableError,
    CircuitOpenError,
    WorkerError,
)

ALIVE, DEAD, DOUBTFUL, UNKNOWN = Outcome.ALIVE, Outcome.DEAD, Outcome.DOUBTFUL, Outcome.UNKNOWN
ERRORS: dict[Outcome, WorkerError] = {
    DEAD: BackendUnreachableError("nobody"),
    DOUBTFUL: BackendFailedError("500"),
    UNKNOWN: BackendUnavailableError("gave up"),
}
POLICY = BreakerPolicy(failures=5, rate=0.5, minimum_volume=10, window=30, recovery=60)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    monotonic = __call__


class Circuit:
    """A breaker, its clock, and everything it said."""

    def __init__(self, **changes: float) -> None:
        fields = {name: getattr(POLICY, name) for name in BreakerPolicy.__slots__} | changes
        self.clock, self.changes = Clock(), list[tuple[str, str]]()
        self.breaker = CircuitBreaker(
            BreakerPolicy(**fields), self.outcome_of, lambda *change: self.changes.append(change), self.clock
        )

    @staticmethod
    def outcome_of(error: WorkerError) -> Outcome:
        return next(outcome for outcome, one in ERRORS.items() if one is error)

    def hear(self, outcomes: Iterable[Outcome], tenant: str = "a", every: float = 0.0) -> "Circuit":
        """Requests one after the other that end so, until the circuit opens."""
        for outcome in outcomes:
            if self.breaker.state == "open":
                break
            send(self.breaker, outcome, tenant)
            self.clock.now += every
        return self

    @property
    def is_open(self) -> bool:
        return self.breaker.state == "open"


def send(breaker: CircuitBreaker, outcome: Outcome, tenant: str = "a") -> None:
    def work() -> None:
        if outcome in ERRORS:
            raise ERRORS[outcome]

    try:
        breaker.call(work, tenant)
    except CircuitOpenError:
        raise
    except WorkerError as error:
        assert error is ERRORS[outcome]  # noqa: PT017 # it must come through as it was


def test_a_dead_backend_opens_it_with_the_minimum_volume_and_not_before() -> None:
    circuit = Circuit().hear([DEAD] * 9)
    assert circuit.breaker.state == "closed"
    assert circuit.hear([DEAD]).changes == [("closed", "open")]


def test_a_death_after_a_window_full_of_successes_is_noticed_as_fast() -> None:
    circuit = Circuit().hear([ALIVE] * 1_000, every=0.01)
    assert not circuit.hear([DEAD] * 9).is_open
    assert circuit.hear([DEAD]).is_open


@pytest.mark.parametrize("sign_of_life", [ALIVE, DOUBTFUL])
def test_one_answer_among_the_silence_leaves_it_to_the_rate(sign_of_life: Outcome) -> None:
    circuit = Circuit().hear([ALIVE] * 100)
    assert not circuit.hear([*[DEAD] * 9, sign_of_life, *[DEAD] * 9]).is_open
    assert circuit.hear([DEAD]).is_open


def test_a_silence_exactly_as_long_as_the_window_counts() -> None:
    assert Circuit(window=36).hear([DEAD] * 10, every=4.0).is_open


def test_it_is_probed_from_the_very_end_of_its_open_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    circuit = opened()
    circuit.clock.now += 60
    send(circuit.breaker, ALIVE)
    assert circuit.breaker.state == "closed"


def test_silence_spread_over_more_than_the_window_proves_nothing() -> None:
    assert not Circuit().hear([DEAD] * 30, every=3.4).is_open
    assert Circuit().hear([DEAD] * 30, every=3.0).is_open


@pytest.mark.parametrize(
    ("outcomes", "opens"),
    [
        ([DEAD, ALIVE] * 4 + [DEAD], False),
        ([DEAD, ALIVE] * 4 + [ALIVE, DEAD], True),
        ([ALIVE] * 2 + [ALIVE, DEAD] * 9, False),
        ([ALIVE, DEAD] * 4 + [ALIVE, ALIVE, ALIVE, DEAD, DEAD], False),
        ([ALIVE, DEAD] * 4 + [ALIVE, ALIVE, ALIVE, DEAD, DEAD, DEAD], True),
    ],
)
def test_the_rate_counts_from_the_minimum_volume(outcomes: list[Outcome], opens: bool) -> None:
    assert Circuit().hear(outcomes).is_open is opens


def test_what_left_the_window_no_longer_counts() -> None:
    circuit = Circuit().hear([DEAD, ALIVE] * 4)
    circuit.clock.now += 31
    assert not circuit.hear([DEAD] * 9).is_open
    circuit = Circuit().hear([ALIVE] * 50)
    circuit.clock.now += 31
    assert circuit.hear([ALIVE, *[DEAD] * 9]).is_open


def test_a_late_success_does_not_open_it() -> None:
    assert not Circuit(minimum_volume=11).hear([*[DEAD] * 10, ALIVE]).is_open


@pytest.mark.parametrize(
    ("changes", "opens_after"),
    [
        ({}, 10),
        ({"failures": 15}, 15),
        ({"minimum_volume": 20}, 20),
        ({"minimum_volume": 2}, 5),
        ({"minimum_volume": 2, "failures": 1}, 2),
    ],
)
def test_each_number_of_the_policy_counts(changes: dict[str, float], opens_after: int) -> None:
    circuit = Circuit(**changes)
    assert not circuit.hear([DEAD] * (opens_after - 1)).is_open
    assert circuit.hear([DEAD]).is_open


def test_the_share_of_failures_that_opens_it_is_the_policys() -> None:
    outcomes = [ALIVE, DEAD, DEAD] * 10
    assert Circuit(rate=0.6).hear(outcomes).is_open
    assert not Circuit(rate=0.7).hear(outcomes).is_open


def test_one_tenants_bad_ids_do_not_shut_out_the_rest() -> None:
    circuit = Circuit()
    for _ in range(200):
        circuit.hear([DOUBTFUL] * 10, "storm").hear([ALIVE], "b").hear([ALIVE], "c")
        circuit.clock.now += 0.1
    circuit.hear([DOUBTFUL], "b")
    assert circuit.changes == []


def test_a_lone_tenants_failures_prove_that_somebody_answers() -> None:
    assert not Circuit().hear([DOUBTFUL] * 1_000).is_open


def test_two_tenants_that_hear_nothing_but_failures_open_it() -> None:
    circuit = Circuit()
    for _ in range(9):
        circuit.hear([DOUBTFUL], "a").hear([DOUBTFUL], "b")
    assert not circuit.is_open
    assert circuit.hear([DOUBTFUL], "a").hear([DOUBTFUL], "b").is_open


def test_what_proves_nothing_changes_nothing() -> None:
    assert not Circuit().hear([*[DEAD] * 9, *[UNKNOWN] * 100]).is_open
    assert Circuit().hear([*[DEAD] * 9, *[UNKNOWN] * 100, DEAD]).is_open


def test_an_error_that_is_none_of_ours_proves_nothing() -> None:
    circuit = Circuit().hear([DEAD] * 9)
    with pytest.raises(ZeroDivisionError):
        circuit.breaker.call(lambda: 1 // 0, "a")
    assert circuit.breaker.state == "closed"


def opened(**changes: float) -> Circuit:
    circuit = Circuit(**changes).hear([DEAD] * 10)
    assert circuit.is_open
    return circuit


def test_while_open_nothing_is_sent_and_the_error_says_how_long() -> None:
    circuit = opened()
    sent: list[int] = []
    circuit.clock.now += 10
    with pytest.raises(CircuitOpenError, match=r"^the backend did not answer before, and is not asked now$") as caught:
        circuit.breaker.call(lambda: sent.append(1), "a")
    assert sent == []
    assert 44 <= caught.value.retry_after <= 56


def test_the_open_time_is_spread_a_tenth_either_way() -> None:
    waits = []
    for _ in range(200):
        with pytest.raises(CircuitOpenError) as caught:
            send(opened().breaker, ALIVE)
        waits.append(caught.value.retry_after)
    assert 54 <= min(waits) < 56
    assert 64 < max(waits) <= 66


def half_open(**changes: float) -> Circuit:
    circuit = opened(**changes)
    circuit.clock.now += 66
    return circuit


def test_a_probe_that_works_closes_it_with_an_empty_window() -> None:
    circuit = half_open()
    send(circuit.breaker, ALIVE)
    assert circuit.changes == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
    assert not circuit.hear([DEAD] * 9).is_open


def test_a_probe_that_nobody_answers_opens_it_again_for_as_long() -> None:
    circuit = half_open()
    send(circuit.breaker, DEAD)
    assert circuit.changes[-1] == ("half_open", "open")
    circuit.clock.now += 53
    with pytest.raises(CircuitOpenError):
        send(circuit.breaker, ALIVE)
    circuit.clock.now += 14
    send(circuit.breaker, ALIVE)
    assert circuit.breaker.state == "closed"


@pytest.mark.parametrize("outcome", [DOUBTFUL, UNKNOWN])
def test_a_probe_that_proves_nothing_leaves_the_next_request_to_probe(outcome: Outcome) -> None:
    circuit = half_open()
    send(circuit.breaker, outcome)
    assert circuit.breaker.state == "half_open"
    send(circuit.breaker, ALIVE)
    assert circuit.breaker.state == "closed"


def during(circuit: Circuit, outcome: Outcome, meanwhile: Callable[[], None]) -> None:
    """A request that ends so, while something else happens."""

    def work() -> None:
        meanwhile()
        raise ERRORS[outcome] if outcome in ERRORS else BackendRefusedError("no", 400)

    circuit.breaker.call(work, "a")


def test_one_probe_goes_and_the_rest_are_told_to_look_again_soon() -> None:
    circuit = half_open()

    def others() -> None:
        for _ in range(5):
            with pytest.raises(CircuitOpenError, match=r"^the backend is being probed by another request$") as caught:
                send(circuit.breaker, ALIVE)
            assert caught.value.retry_after == 1

    with pytest.raises(BackendUnreachableError):
        during(circuit, DEAD, others)
    assert circuit.is_open


def test_what_was_sent_before_it_opened_is_no_probe() -> None:
    circuit = Circuit()

    def die_and_wait() -> None:
        circuit.hear([DEAD] * 10)
        circuit.clock.now += 66

    circuit.breaker.call(die_and_wait, "a")
    assert circuit.is_open

    circuit = Circuit()

    def die_and_recover() -> None:
        circuit.hear([DEAD] * 10)
        circuit.clock.now += 66
        send(circuit.breaker, ALIVE)
        circuit.hear([DEAD] * 9)

    with pytest.raises(BackendUnreachableError):
        during(circuit, DEAD, die_and_recover)
    assert circuit.breaker.state == "closed"


def test_no_lock_is_held_while_requests_are_on_their_way() -> None:
    breaker = CircuitBreaker(POLICY, Circuit.outcome_of)
    together = threading.Barrier(16, timeout=10)
    threads = [threading.Thread(target=breaker.call, args=(together.wait, "a")) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert not together.broken


def test_one_of_many_threads_is_the_probe() -> None:
    circuit = half_open()
    start, sent, refused = threading.Barrier(16, timeout=10), list[int](), list[int]()
    slow = threading.Event()

    def work() -> None:
        sent.append(1)
        slow.wait(10)

    def run() -> None:
        start.wait()
        try:
            circuit.breaker.call(work, "a")
        except CircuitOpenError:
            refused.append(1)
            if len(refused) == 15:
                slow.set()

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert (len(sent), len(refused)) == (1, 15)
    assert circuit.breaker.state == "closed"


def test_memory_is_bounded_whatever_the_rate() -> None:
    circuit = Circuit()
    for _ in range(100):
        circuit.hear([ALIVE, DOUBTFUL] * 100, every=0.01)
    window = circuit.breaker._state._window  # type: ignore[attr-defined] # of the closed state
    assert len(window._slices) <= 10
    assert sum(len(part.doubtful) for part in window._slices) <= 10


@given(
    st.lists(st.tuples(st.sampled_from([ALIVE, DEAD]), st.integers(0, 4)), max_size=120),
    st.sampled_from([(1, 0.3, 4), (1, 0.5, 10), (1, 1.0, 6)]),
)
@example([(ALIVE, 1)] * 5 + [(DEAD, 1)] * 5, (1, 0.5, 10))
def test_where_the_silence_is_short_it_opens_as_interlock_does(
    story: list[tuple[Outcome, int]], numbers: tuple[int, float, int]
) -> None:
    """The oracle: another library's rate over a sliding window of whole seconds, with the same numbers.

    Left out: silences that open ours at once, and successes that open theirs.
    """
    failures, rate, volume = numbers
    circuit = Circuit(failures=failures, rate=rate, minimum_volume=volume, window=10)
    config = Config(
        failure_rate_threshold=rate,
        minimum_number_of_calls=volume,
        window_type=WindowType.TIME_BASED,
        window_size=10,
        permitted_calls_in_half_open=1,
    )
    theirs = StateMachine(config=config, clock=circuit.clock)
    silence = 0
    for outcome, seconds in story:
        silence = silence + 1 if outcome is DEAD else 0
        assume(silence < volume)
        circuit.hear([outcome])
        theirs.record(Theirs.SUCCESS if outcome is ALIVE else Theirs.FAILURE)
        assume(outcome is DEAD or theirs.state is State.CLOSED)
        assert circuit.is_open is (theirs.state is State.OPEN)
        if circuit.is_open:
            return
        circuit.clock.now += seconds
