"""What the workers keep between tasks, in the Redis that the backend reads API results from (`CACHE_REDIS_*`).

All keys of an execution share the prefix `workers:execution:{id}:` and expire after its deadline, whatever happens.
The one key that outlives it is the backend's: the list of results (contract section 2).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from shared.config import VISIBILITY_SECONDS, Settings
from shared.errors import StateStoreError
from shared.models import BatchResult, FileResult

_RESULTS_SECONDS = 86_400  # contract section 2
_MARGIN_SECONDS = 3_600  # keys must outlive the deadline of what they are for
_KEYS = ("fan_in", "batches", "started", "files", "failure")

# Record a batch's result once, and say whether its recorder is to send the callback: the batch that completes the set,
# and no other; that one again when it is redelivered because its first delivery died before `sent` was written.
_RECORD_BATCH = """
local fan_in, batches = KEYS[1], KEYS[2]
local expected = redis.call('HGET', fan_in, 'batches')
if not expected then return 0 end
redis.call('HSETNX', batches, ARGV[1], ARGV[2])
redis.call('EXPIRE', batches, ARGV[3])
if redis.call('HLEN', batches) < tonumber(expected) then return 0 end
redis.call('HSETNX', fan_in, 'claimed', ARGV[1])
if redis.call('HGET', fan_in, 'claimed') ~= ARGV[1] then return 0 end
return 1 - redis.call('HEXISTS', fan_in, 'sent')
"""

_MARK_SENT = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'sent', 1) end"

# Push a file's result for the backend once: the push and its claim are one step, so that no crash can part them.
_PUSH_RESULT = """
if redis.call('SADD', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
"""


@dataclass(frozen=True, slots=True)
class FanIn:
    """What the last batch needs to send the callback.

    Attributes:
        batches: how many results it waits for.
        files: how many files are in them.
        callback_task: the task to send then.
        callback_queue: where to.
        callback_kwargs: its keyword arguments.
        kick_off: the task that opened it; another one for the same execution is a duplicate.
    """

    batches: int
    files: int
    callback_task: str
    callback_queue: str
    callback_kwargs: Mapping[str, Any]
    kick_off: str


def redis_client(settings: Settings) -> redis.Redis:
    """The one way to a Redis connection: bounded waits, checked after idling, two more tries on a fresh connection."""
    client: redis.Redis = redis.Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        db=settings.redis_db,
        username=settings.redis_username or None,
        password=settings.redis_password.reveal() or None,
        retry=Retry(ExponentialBackoff(cap=1, base=0.1), 2),
        decode_responses=True,
        socket_connect_timeout=5,
        socket_timeout=5,
        health_check_interval=30,
    )
    return client


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise StateStoreError(f"the state store (CACHE_REDIS_*) failed: {type(error).__name__}: {error}") from error


class ExecutionState:
    """The state of executions. Thread-safe. Every method raises StateStoreError where Redis cannot be asked."""

    def __init__(self, client: redis.Redis, execution_deadline: float) -> None:
        self._redis = client
        self._expiry = int(execution_deadline) + _MARGIN_SECONDS
        self._record_batch: Callable[..., Any] = client.register_script(_RECORD_BATCH)
        self._mark_sent: Callable[..., Any] = client.register_script(_MARK_SENT)
        self._push_result: Callable[..., Any] = client.register_script(_PUSH_RESULT)

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()

    def open_fan_in(self, execution_id: str, fan_in: FanIn) -> FanIn:
        """Register what the batches of an execution are folded into. Doing it again changes nothing.

        Returns: what is registered.
        """
        fields = {
            "batches": fan_in.batches,
            "files": fan_in.files,
            "callback_task": fan_in.callback_task,
            "callback_queue": fan_in.callback_queue,
            "callback_kwargs": json.dumps(dict(fan_in.callback_kwargs)),
            "kick_off": fan_in.kick_off,
        }
        key = _key(execution_id, "fan_in")
        with _translated(), self._redis.pipeline() as pipe:
            for name, value in fields.items():
                pipe.hsetnx(key, name, value)  # type: ignore[arg-type] # redis-py types hash values as str
            pipe.expire(key, self._expiry)
            pipe.hgetall(key)
            return _fan_in(pipe.execute()[-1])

    def fan_in(self, execution_id: str) -> FanIn | None:
        """What the batches of an execution are folded into, while it runs."""
        with _translated():
            stored: dict[str, str] = self._redis.hgetall(_key(execution_id, "fan_in"))  # type: ignore[assignment]
        return _fan_in(stored) if stored else None

    def record_batch(self, execution_id: str, batch: int, result: BatchResult) -> FanIn | None:
        """Record a batch's result, once. The fan-in, if this batch is the one to send the callback; else None."""
        keys = [_key(execution_id, "fan_in"), _key(execution_id, "batches")]
        with _translated():
            last = self._record_batch(keys=keys, args=[batch, result.model_dump_json(), self._expiry])
        return self.fan_in(execution_id) if last else None

    def batch_results(self, execution_id: str) -> list[dict[str, Any]]:
        """The recorded results of an execution's batches, in the order of the batches."""
        with _translated():
            stored: dict[str, str] = self._redis.hgetall(_key(execution_id, "batches"))  # type: ignore[assignment]
        return [json.loads(stored[batch]) for batch in sorted(stored, key=int)]

    def callback_sent(self, execution_id: str) -> None:
        """Remember that the callback was sent, unless it has run already and the fan-in is gone."""
        with _translated():
            self._mark_sent(keys=[_key(execution_id, "fan_in")])

    def file_results(self, execution_id: str, places: Sequence[str]) -> dict[str, FileResult]:
        """The files that have ended, by their places: where a later delivery of a batch goes on.

        A place is whatever names a file within its execution for ever.
        """
        if not places:
            return {}
        with _translated():
            stored: list[str | None] = self._redis.hmget(_key(execution_id, "files"), places)  # type: ignore[assignment]
        found = zip(places, stored, strict=True)
        return {place: FileResult.model_validate_json(text) for place, text in found if text is not None}

    def file_started(self, execution_id: str, place: str, now: float) -> float:
        """When a file was first started, by the clock of `now`; the first caller's `now` is kept."""
        key = _key(execution_id, "started")
        with _translated(), self._redis.pipeline() as pipe:
            pipe.hsetnx(key, place, str(now))
            pipe.expire(key, self._expiry)
            pipe.hget(key, place)
            return float(pipe.execute()[-1])

    def record_file(self, execution_id: str, place: str, result: FileResult) -> None:
        """Remember how a file ended."""
        key = _key(execution_id, "files")
        with _translated(), self._redis.pipeline() as pipe:
            pipe.hset(key, place, result.model_dump_json())
            pipe.expire(key, self._expiry)
            pipe.execute()

    def forget_files(self, execution_id: str, places: Sequence[str]) -> None:
        """Delete what is remembered of these files."""
        with _translated(), self._redis.pipeline() as pipe:
            for what in ("files", "started"):
                pipe.hdel(_key(execution_id, what), *places)
            pipe.execute()

    def push_api_result(
        self, workflow_id: str, execution_id: str, file_execution_id: str, item: Mapping[str, Any]
    ) -> bool:
        """Hand a file's result to the backend (contract section 2). False if an earlier delivery did."""
        keys = [_key(execution_id, "pushed"), f"api_results:{workflow_id}:{execution_id}"]
        arguments = [file_execution_id, json.dumps(dict(item)), self._expiry, _RESULTS_SECONDS]
        with _translated():
            return bool(self._push_result(keys=keys, args=arguments))

    def fail(self, execution_id: str, reason: str) -> None:
        """Keep the first reason why an execution cannot go on; its callback writes it."""
        with _translated():
            self._redis.set(_key(execution_id, "failure"), reason, nx=True, ex=self._expiry)

    def failure(self, execution_id: str) -> str | None:
        """That reason, if there is one."""
        with _translated():
            found: str | None = self._redis.get(_key(execution_id, "failure"))  # type: ignore[assignment]
        return found

    def forget(self, execution_id: str) -> None:
        """Delete every key of an execution that has ended.

        But for the claims on its results, which end as soon as no copy of a batch can still be at work: a copy is cut
        off from its message after that time.
        """
        with _translated(), self._redis.pipeline() as pipe:
            pipe.delete(*(_key(execution_id, what) for what in _KEYS))
            pipe.expire(_key(execution_id, "pushed"), VISIBILITY_SECONDS)
            pipe.execute()


def _fan_in(stored: Mapping[str, str]) -> FanIn:
    return FanIn(
        batches=int(stored["batches"]),
        files=int(stored["files"]),
        callback_task=stored["callback_task"],
        callback_queue=stored["callback_queue"],
        callback_kwargs=json.loads(stored["callback_kwargs"]),
        kick_off=stored["kick_off"],
    )


def _key(execution_id: str, what: str) -> str:
    return f"workers:execution:{execution_id}:{what}"
