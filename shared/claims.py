"""Who works on what: leases on pieces of work, so that each is done once however often its message comes.

A piece of work is named by what it is (execution and batch, message), never by the delivery that does it. Its owner
holds a lease that ends with its process and is renewed while it works; what is done stays done. The clock is the
server's, since those of the workers differ.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import redis
from redis.commands.core import Script

from shared.errors import HandBack, StateStoreError
from shared.logging_utils import get_logger
from shared.state_errors import translated

log = get_logger(__name__)

# What is done is remembered while a copy of its message may still come.
TOMBSTONE_SECONDS = 3_600
_LAST_QUESTION_SECONDS = 2  # a stop waits no longer for a state store that is silent

_NOW = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
_HELD = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
local owner, till
if held then owner, till = string.match(held, '^(%S+) (%d+)$') end
"""
# The answer's second number: deliveries that have begun since one got on with it, or the milliseconds a lease has left.
# An owner that asks again, since the answer was lost on its way, is one delivery.
_TAKING = f"""
local function take()
if redis.call('EXISTS', KEYS[2]) == 1 then return {{'done', 0}} end
{_HELD}
if held == 'done' then return {{'done', 0}} end
{_NOW}
if owner and owner ~= ARGV[2] and tonumber(till) > now then return {{'held', tonumber(till) - now}} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + ARGV[3]))
local begun = redis.call('HINCRBY', KEYS[1], ARGV[1] .. ' deliveries', owner == ARGV[2] and 0 or 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {{'taken', begun}}
end
"""
_TAKE = f"{_TAKING} return take()"
_RENEW = f"""
{_HELD}
if owner ~= ARGV[2] then return 0 end
{_NOW}
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + ARGV[3]))
return 1
"""
_RELEASE = f"""
{_HELD}
if owner == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. ' deliveries') end
"""
_PROGRESSED = f"""
{_HELD}
if owner == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1] .. ' deliveries') end
"""
_FINISH = f"""
{_HELD}
if owner ~= ARGV[2] then return end
redis.call('HDEL', KEYS[1], ARGV[1] .. ' deliveries')
redis.call('HSET', KEYS[1], ARGV[1], 'done')
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""
# The owner has neither renewed its lease nor given it back: it died. Only one who asks is told.
_BEREFT = f"{_HELD}{_NOW} return owner and tonumber(till) <= now and redis.call('HDEL', KEYS[1], ARGV[1]) or 0"
_ALIVE = f"{_HELD}{_NOW} return owner and tonumber(till) > now and 1 or 0"


@dataclass(frozen=True, slots=True)
class Claim:
    """A piece of work.

    Attributes:
        scope: the prefix of the keys that it shares with other work: an execution's, or a message's own.
        what: which work of that scope; no blanks.
        expiry: seconds after which it is forgotten.
        beginning: how it begins, if that is the same step of the server as taking the lease.
    """

    scope: str
    what: str
    expiry: int
    beginning: "Beginning | None" = field(default=None, compare=False, repr=False)

    @property
    def keys(self) -> list[str]:
        """Where the leases of the scope are, and what says that the whole scope is done."""
        return [f"{self.scope}:claims", f"{self.scope}:ended"]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a piece of work begins with, once its lease is taken: it saves a question to the state store.

    Attributes:
        script: one that `with_lease` made.
        keys: its keys.
        arguments: its arguments.
    """

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]


def with_lease(source: str) -> str:
    """A script that is run where the lease is taken by it; what it returns is the lease's answer."""
    return f"""{_TAKING}
local lease = take()
if lease[1] ~= 'taken' then return lease end
local KEYS, ARGV = {{unpack(KEYS, 3)}}, {{unpack(ARGV, 5)}}
local function begin()
{source}
end
return {{lease[1], lease[2], begin()}}
"""


def message_claim(task_id: str) -> Claim:
    """The work that is a message's own: nothing else names it."""
    return Claim(f"workers:message:{task_id}", "message", TOMBSTONE_SECONDS)


class LeaseLost(HandBack):  # not an error: see there
    """Somebody else does this work now, or may: nothing more of it may be written here."""


@dataclass(frozen=True, slots=True)
class Held:
    """The work is another's, for so many seconds unless it is renewed."""

    seconds: float


@dataclass(slots=True)
class Lease:
    """The right to do a piece of work.

    Attributes:
        claim: the work.
        deliveries: how many have begun it since one got on with it, this one included: the others died of it.
        seconds: how long it holds without being renewed.
        renewed: when it last was, by the monotonic clock.
        taken: when it was taken, by that clock.
        answer: what the work's beginning has answered, if it has one.
    """

    claim: Claim
    deliveries: int
    seconds: float
    renewed: float
    owner: str = field(default_factory=lambda: uuid4().hex)
    lost: bool = False
    taken: float = field(default_factory=time.monotonic)
    answer: Any = None

    def check(self) -> None:
        """Raise LeaseLost if it may be another's by now. A process that was frozen finds that out here."""
        if self.lost or time.monotonic() - self.renewed > self.seconds:
            raise LeaseLost(f"the lease on {self.claim.what} is lost")


class Claims:
    """The leases of one process: taken, renewed by a thread of its own, given back. Thread-safe.

    Methods raise StateStoreError where Redis cannot be asked.
    """

    def __init__(self, client: redis.Redis, seconds: float) -> None:
        self._redis, self._seconds = client, seconds
        self._scripts = {
            name: client.register_script(source)
            for name, source in (
                ("take", _TAKE),
                ("renew", _RENEW),
                ("release", _RELEASE),
                ("progressed", _PROGRESSED),
                ("finish", _FINISH),
                ("alive", _ALIVE),
                ("bereft", _BEREFT),
            )
        }
        self._kept: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, claim: Claim) -> Lease | Held | None:
        """A lease on the work; or how long another holds it; or None: it is done."""
        lease = Lease(claim, 0, self._seconds, time.monotonic())
        said, number, *answer = self._take(claim, lease.owner)
        if said == "done":
            return None
        if said == "held":
            return Held(number / 1_000)
        lease.deliveries, lease.answer = number, answer[0] if answer else None
        self._keep(lease)
        return lease

    def _take(self, claim: Claim, owner: str) -> Any:
        first = claim.beginning or Beginning(self._scripts["take"], (), ())
        arguments = [claim.what, owner, int(self._seconds * 1_000), claim.expiry, *first.arguments]
        with translated():
            return first.script(keys=[*claim.keys, *first.keys], args=arguments, client=self._redis)

    def progressed(self, lease: Lease) -> None:
        """Say that this delivery has done some of the work: what kills the next process is not what killed others."""
        if lease.deliveries:
            lease.deliveries = 0
            self._ask("progressed", lease.claim, lease.owner)

    def release(self, lease: Lease) -> None:
        """Give the work back: it ended in an orderly way, and will go on in another delivery."""
        self._let_go(lease)
        self._ask("release", lease.claim, lease.owner)

    def finish(self, lease: Lease) -> None:
        """Remember that the work is done. Of a scope that has ended, or under a lost lease, nothing is written."""
        self._let_go(lease)
        self._ask("finish", lease.claim, lease.owner, lease.claim.expiry)

    def alive(self, claim: Claim) -> bool:
        """Whether somebody is at that work."""
        return bool(self._ask("alive", claim))

    def bereft(self, claim: Claim) -> bool:
        """Whether who was at that work has died; said once, and it is nobody's then."""
        return bool(self._ask("bereft", claim))

    def close(self) -> None:
        """End the thread, whose question may be on its way. Leases that are held end by themselves."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_LAST_QUESTION_SECONDS)

    def _ask(self, name: str, claim: Claim, *arguments: Any) -> Any:
        with translated():
            return self._scripts[name](keys=claim.keys, args=[claim.what, *arguments])

    def _keep(self, lease: Lease) -> None:
        with self._lock:
            self._kept[lease.owner] = lease
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew_always, name="leases", daemon=True)
                self._thread.start()

    def _let_go(self, lease: Lease) -> None:
        with self._lock:
            self._kept.pop(lease.owner, None)

    def _renew_always(self) -> None:
        while not self._closing.wait(self._seconds / 3):
            with self._lock:
                leases = list(self._kept.values())
            renew_all(leases, self._renew)

    def _renew(self, lease: Lease) -> bool:
        return bool(self._ask("renew", lease.claim, lease.owner, int(self._seconds * 1_000)))


def renew_all(leases: Sequence[Lease], renew: Callable[[Lease], bool]) -> None:
    """Renew each lease. One that cannot be asked about stays as it is, and ends by its own clock."""
    for lease in leases:
        asked = time.monotonic()
        try:
            held = renew(lease)
        except StateStoreError as error:
            log.warning("lease_not_renewed", work=lease.claim.what, reason=str(error))
            continue
        lease.lost = lease.lost or not held
        if held:
            lease.renewed = asked
