"""The circuit breaker: where nobody answers, nothing is sent for a while. `retry( breaker( send ) )`.

Why it is our own stands in ARCHITECTURE.md; the states and their names are those of M. Nygard, Release It! (2018), and
of https://martinfowler.com/bliki/CircuitBreaker.html.
"""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol, TypeVar

from shared.errors import CircuitOpenError, WorkerError

T = TypeVar("T")


class Outcome(Enum):
    """What one request proves about the backend."""

    ALIVE = auto()
    DEAD = auto()
    """Nobody answered for it."""
    DOUBTFUL = auto()
    """It answered, and failed. For the tenant with most of these they prove nothing: an unknown id is enough."""
    UNKNOWN = auto()
    """Nothing: we gave up before it had its time, or it asked for patience."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a circuit opens, and for how long.

    The rate alone would notice a death late, after a window full of successes; so `minimum_volume` requests in a row
    that nobody answered open the circuit at once. Half of ten is five, so the defaults of the three numbers agree;
    below half, three sends still get through seven times in eight, and refusing to send would do worse.

    Attributes:
        failures: needed in the window before the rate counts.
        rate: share of failures that opens the circuit, from 0 to 1.
        minimum_volume: requests needed in the window before the rate counts.
        window: seconds over which requests are counted.
        recovery: seconds open before the probe, on average; a tenth more or less by chance, so that a fleet does not
            probe as one.
    """

    failures: int
    rate: float
    minimum_volume: int
    window: float
    recovery: float


class _Window:
    """Counts of the last seconds, in slices of a tenth of the window, so that memory is bounded whatever the rate."""

    _SLICES = 10

    @dataclass(slots=True)
    class _Slice:
        number: int
        heard: int = 0
        dead: int = 0
        doubtful: Counter[str] = field(default_factory=Counter)

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._slices: deque[_Window._Slice] = deque(maxlen=self._SLICES)
        self._silence: deque[float] = deque(maxlen=max(policy.minimum_volume, policy.failures))

    def add(self, now: float, outcome: Outcome, tenant: str) -> None:
        number = int(now * self._SLICES / self._policy.window)
        if not self._slices or self._slices[-1].number < number:
            self._slices.append(self._Slice(number))
        current = self._slices[-1]
        current.heard += 1
        if outcome is Outcome.DEAD:
            current.dead += 1
            self._silence.append(now)
            return
        self._silence.clear()
        if outcome is Outcome.DOUBTFUL:
            current.doubtful[tenant] += 1

    def fails(self, now: float) -> bool:
        policy = self._policy
        if len(self._silence) == self._silence.maxlen and now - self._silence[0] <= policy.window:
            return True
        oldest = int(now * self._SLICES / policy.window) - self._SLICES
        kept = [part for part in self._slices if part.number > oldest]
        doubtful = sum((part.doubtful for part in kept), Counter[str]())
        loudest = max(doubtful.values(), default=0)
        heard = sum(part.heard for part in kept) - loudest
        failed = sum(part.dead for part in kept) + doubtful.total() - loudest
        return failed >= policy.failures and heard >= policy.minimum_volume and failed >= policy.rate * heard


class _State(Protocol):
    name: str

    def admit(self, now: float, /) -> "_State":
        """The state in which a request may be sent now. Raises CircuitOpenError if none may."""

    def hear(self, now: float, outcome: Outcome, tenant: str, /) -> "_State":
        """The state after a request that this state admitted."""


class _Closed:
    name = "closed"

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy, self._window = policy, _Window(policy)

    def admit(self, _now: float, /) -> _State:
        return self

    def hear(self, now: float, outcome: Outcome, tenant: str, /) -> _State:
        if outcome is Outcome.UNKNOWN:
            return self
        self._window.add(now, outcome, tenant)
        if outcome is Outcome.ALIVE or not self._window.fails(now):
            return self
        return _Open(self._policy, now)


class _Open:
    name = "open"

    def __init__(self, policy: BreakerPolicy, now: float) -> None:
        self._policy = policy
        self._until = now + policy.recovery * random.uniform(0.9, 1.1)  # noqa: S311 # spreads load, guards nothing

    def admit(self, now: float, /) -> _State:
        if now < self._until:
            raise CircuitOpenError("the backend did not answer before, and is not asked now", self._until - now)
        return _HalfOpen(self._policy)

    def hear(self, _now: float, _outcome: Outcome, _tenant: str, /) -> _State:
        return self  # never asked: it admits nothing


class _HalfOpen:
    """One probe is on its way."""

    name = "half_open"
    _LOOK_AGAIN_SECONDS = 1.0

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy

    def admit(self, _now: float, /) -> _State:
        raise CircuitOpenError("the backend is being probed by another request", self._LOOK_AGAIN_SECONDS)

    def hear(self, now: float, outcome: Outcome, _tenant: str, /) -> _State:
        if outcome is Outcome.ALIVE:
            return _Closed(self._policy)
        if outcome is Outcome.DEAD:
            return _Open(self._policy, now)
        return _Probeless(self._policy)


class _Probeless(_HalfOpen):
    """The probe proved nothing: the next request is the probe."""

    def admit(self, _now: float, /) -> _State:
        return _HalfOpen(self._policy)


class CircuitBreaker:
    """Refuses to send where nobody answers. Thread-safe; no lock is held during a request.

    Its state is this process's own: every process learns within its `minimum_volume`, and nothing shared can fail.

    Args:
        policy: when it opens, and for how long.
        outcome_of: what a request proves that ended with this error.
        listener: hears each change: the states' names before and after (closed, open, half_open).
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        outcome_of: Callable[[WorkerError], Outcome],
        listener: Callable[[str, str], None] = lambda _before, _after: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outcome_of, self._listener, self._clock = outcome_of, listener, clock
        self._lock = threading.Lock()
        self._state: _State = _Closed(policy)

    @property
    def state(self) -> str:
        """closed, open or half_open."""
        return self._state.name

    def call(self, send: Callable[[], T], tenant: str) -> T:
        """Send, if it may be sent, and learn from how it ends.

        Raises:
            CircuitOpenError: it may not; nothing was sent.
            whatever `send` raises.
        """
        admitted = self._swap(lambda state: state.admit(self._clock()))
        outcome = Outcome.UNKNOWN
        try:
            answer = send()
            outcome = Outcome.ALIVE
        except WorkerError as error:
            outcome = self._outcome_of(error)
            raise
        finally:
            # What an earlier state admitted proves nothing to a later one: it may be the death that was mourned.
            self._swap(lambda state: state.hear(self._clock(), outcome, tenant) if state is admitted else state)
        return answer

    def _swap(self, step: Callable[[_State], _State]) -> _State:
        with self._lock:
            before = self._state
            after = self._state = step(before)
        if after.name != before.name:
            self._listener(before.name, after.name)
        return after
