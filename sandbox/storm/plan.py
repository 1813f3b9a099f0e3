"""What a storm does and when: a pure function of its seed, so that what went wrong once can be looked at again."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

LEASE_SECONDS = 3.0
# Of one part of the platform in a minute.
_BLOWS_TO_WORKERS = 15
_DEATHS_OF_SERVERS = 2
_BACKEND_DOWN_SECONDS = 20.0
_BACKEND_DOWN_SECONDS_IN_A_SHORT_STORM = 10.0
SERVERS = ("broker", "redis")

Kind = Literal["kill", "stop", "end"]


@dataclass(frozen=True, slots=True, order=True)
class Blow:
    """One thing that is done to one part.

    Attributes:
        at: seconds from the beginning of the storm.
        kind: `kill` is SIGKILL, `stop` SIGSTOP and later SIGCONT, `end` SIGTERM.
        part: its name in the stack.
        seconds: how long it stays down after `kill` and `end`, how long it stands still after `stop`.
    """

    at: float
    kind: Kind
    part: str
    seconds: float


# Small enough that every bound is met many times in a minute, and as `shared.config` wants them: a slice, a request and
# a drain together are below the visibility timeout, and so is any other task.
WORKER_SETTINGS = {
    "BATCH_SLICE_SECONDS": "5",
    "INTERNAL_API_TIMEOUT": "2.5",
    "INTERNAL_API_RETRY_BACKOFF_FACTOR": "0.05",
    "TASK_DEADLINE_SECONDS": "10",
    "DRAIN_SECONDS": "3",
    "BROKER_VISIBILITY_TIMEOUT": "11",
    "CIRCUIT_BREAKER_RECOVERY_TIMEOUT": "1",
    "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "STALL_SECONDS": "15",
    "REAPER_INTERVAL_SECONDS": "2",
    "MAX_DELIVERIES": "50",  # a storm kills innocent work often
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
}
BACKEND_SETTINGS = {"SANDBOX_TOOL_WAIT_SECONDS": "0.3", "SANDBOX_LOG_LEVEL": "WARNING"}
# The answer of a slow request comes after whoever asked has given up.
WEATHER = {
    "rate_503": 0.05,
    "rate_reset": 0.02,
    "rate_reset_after": 0.02,
    "rate_slow": 0.02,
    "slow_seconds": 3.0,
    "tool_seconds": 0.2,
}


def plan(seed: int, minutes: float, workers: Sequence[str]) -> list[Blow]:
    """Every blow of a storm, in the order of time; each worker meets every kind as often as the others."""
    rng = random.Random(seed)  # noqa: S311 # it chooses what breaks, nothing secret
    targets = _targets(rng, workers)
    down = _BACKEND_DOWN_SECONDS if minutes > 1 else _BACKEND_DOWN_SECONDS_IN_A_SHORT_STORM
    blows: list[Blow] = []
    for begin in range(0, round(minutes * 60), 60):
        length = min(60.0, minutes * 60 - begin)
        blows.append(Blow(begin + length * rng.uniform(0.3, 0.5), "kill", "backend", down * length / 60))
        for part in SERVERS:
            for number in range(_DEATHS_OF_SERVERS):
                at = begin + length * (number + rng.random()) / _DEATHS_OF_SERVERS
                blows.append(Blow(at, "kill", part, rng.uniform(0.2, 4)))
        count = max(1, round(_BLOWS_TO_WORKERS * length / 60))
        for number in range(count):
            kind, part = next(targets)
            at = begin + length * (number + rng.random()) / count
            longest = 2 * LEASE_SECONDS if kind == "stop" else LEASE_SECONDS
            blows.append(Blow(at, kind, part, rng.uniform(0.2, longest)))
    return sorted(blows)


def _targets(rng: random.Random, workers: Sequence[str]) -> Iterator[tuple[Kind, str]]:
    kinds: tuple[Kind, ...] = ("kill", "stop", "end")
    every = list(itertools.product(kinds, workers))
    while True:
        rng.shuffle(every)
        yield from every
