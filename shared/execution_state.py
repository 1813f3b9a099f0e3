"""What the workers keep between tasks, in the Redis that the backend reads API results from (`CACHE_REDIS_*`).

All keys of an execution share the prefix `workers:execution:{id}:` (its context is `context:{id}`) and expire after its
deadline, whatever happens. Once it has ended, `…:ended` is all that is left for a while, with the lines of its log:
nothing else is written for it any more, so that no late copy of a message brings back what was cleared away. The
backend's list of results (contract section 2) outlives it.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shared.claims import TOMBSTONE_SECONDS, Claim
from shared.file_state import LOOK_SECONDS, FileState
from shared.models import BatchResult, Context, FileResult
from shared.passage import REQUEST_ID, current
from shared.recent_errors import RecentErrors
from shared.reservations import Reservations
from shared.state_errors import translated
from shared.state_store import REGISTER_KEY, flat, key_of

_CONTEXT_SECONDS = 1_200
_KEYS = (
    "run",
    "batches",
    "plan",
    "files",
    "started",
    "stages",
    "failure",
    "claims",
    "cached",
    "pushed",
    "skipped",
    "look",
    "notified",
)
_IDENTITY = ("execution_id", "organization_id", "workflow_id", "pipeline_id", "is_api", "files")


@dataclass(frozen=True, slots=True)
class Run:
    """An execution that was started here.

    Attributes:
        execution_id: whose state it is.
        organization_id: the tenant's string id.
        workflow_id: of which workflow.
        pipeline_id: the pipeline, or the API deployment.
        is_api: its kind.
        deadline: when it must have ended, in seconds since 1970; 0 for the time that an execution may take from now.
        batches: how many results it waits for; None before its files went out.
        files: how many files are in them, or are known of it.
        looks: how often the reaper has looked after it.
        request_id: of the user's request that started it.
    """

    execution_id: str
    organization_id: str
    workflow_id: str
    pipeline_id: str | None
    is_api: bool
    deadline: float = 0.0
    batches: int | None = None
    files: int = 0
    looks: int = 0
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """How an execution goes, at one moment.

    Attributes:
        run: what is known of it, while it runs.
        failure: why it cannot go on, and how many files it has, if there is such a reason.
        results: of its batches that have one, by their numbers, in order.
        skipped: why files were left out, by their paths.
    """

    run: Run | None
    failure: tuple[str, int] | None
    results: Mapping[int, dict[str, Any]]
    skipped: Mapping[str, str]


class ExecutionState(FileState):
    """The state of executions and of their files, which files they hold, and the barrier that their batches meet at."""

    @cached_property
    def reservations(self) -> Reservations:
        """Which files of a source executions hold."""
        return Reservations(self._redis)

    @property
    def errors(self) -> RecentErrors:
        """The last errors of the fleet."""
        return RecentErrors(self._redis)

    def claim(self, execution_id: str, what: str) -> Claim:
        """A piece of an execution's work, to take a lease on."""
        return Claim(key_of(execution_id, "").rstrip(":"), what, self._expiry)

    # The life of an execution.

    def register(self, run: Run) -> Run:
        """Make an execution known, so that the reaper looks after it. Doing it again changes nothing.

        Returns: what is known of it.
        """
        known = {name: _text(getattr(run, name)) for name in _IDENTITY if getattr(run, name) is not None}
        if passage := current():
            known[REQUEST_ID] = passage.request_id
        known["deadline"] = str(run.deadline or time.time() + self._deadline)
        found: list[str] = self._run_script("register", run.execution_id, ["run"], *flat(known))
        return _run(dict(zip(found[::2], found[1::2], strict=True))) or run

    def run(self, execution_id: str) -> Run | None:
        """What is known of an execution, while it runs."""
        with translated():
            stored: dict[str, str] = self._redis.hgetall(key_of(execution_id, "run"))  # type: ignore[assignment]
        return _run(stored)

    def known(self, execution_id: str) -> Known:
        """How an execution goes."""
        with translated(), self._redis.pipeline(transaction=False) as pipe:
            for what in ("run", "failure", "batches", "skipped"):
                pipe.hgetall(key_of(execution_id, what))
            run, failure, batches, skipped = pipe.execute()
        reason = (failure["reason"], int(failure["files"])) if failure else None
        results = {int(number): json.loads(batches[number]) for number in sorted(batches, key=int)}
        return Known(_run(run), reason, results, skipped)

    def progress(self, execution_id: str) -> tuple[str | None, int]:
        """Why an execution cannot go on, if so, and how many of its batches have a result."""
        with translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(key_of(execution_id, "failure"), "reason")
            pipe.hlen(key_of(execution_id, "batches"))
            reason, recorded = pipe.execute()
        return reason, recorded

    def open_fan_in(self, execution_id: str, batches: int, files: int, plan: Mapping[int, str]) -> None:
        """Say how many results an execution waits for. Doing it again changes nothing.

        Args:
            execution_id: whose.
            batches: how many.
            files: how many files are in them.
            plan: the message of each batch by its number, kept until its result is there.
        """
        messages = flat({str(number): message for number, message in plan.items()})
        self._run_script("open", execution_id, ["run", "plan", "look"], batches, files, LOOK_SECONDS, *messages)

    def plan(self, execution_id: str) -> dict[int, dict[str, Any]]:
        """The batches without a result, as they went out, by their numbers."""
        with translated():
            stored: dict[str, str] = self._redis.hgetall(key_of(execution_id, "plan"))  # type: ignore[assignment]
        return {int(number): json.loads(batch) for number, batch in stored.items()}

    def record_batch(self, execution_id: str, batch: int, result: BatchResult) -> bool:
        """Record a batch's result, once. Whether this batch is the one to send the callback."""
        names = ["run", "batches", "plan"]
        return bool(self._run_script("record", execution_id, names, batch, result.model_dump_json()))

    def callback_sent(self, execution_id: str) -> None:
        """Remember that the callback was sent, unless the execution has ended already."""
        self._put(execution_id, "run", {"sent": "1"})

    def fail(self, execution_id: str, reason: str, files: int = 0) -> None:
        """Keep the first reason why an execution cannot go on, and how many files it has; its callback writes it."""
        self._put(execution_id, "failure", {"reason": reason, "files": str(files)}, once=True)

    def ended(self, execution_id: str) -> bool:
        """Whether the execution has ended, a while ago at most."""
        with translated():
            return bool(self._redis.exists(key_of(execution_id, "ended")))

    def forget(self, execution_id: str) -> None:
        """Delete every key of an execution that has ended, and remember that it has."""
        with translated(), self._redis.pipeline() as pipe:
            pipe.set(key_of(execution_id, "ended"), "1", ex=TOMBSTONE_SECONDS)
            pipe.expire(key_of(execution_id, "log"), TOMBSTONE_SECONDS)  # which is read when something went wrong
            pipe.delete(_context_key(execution_id), *(key_of(execution_id, what) for what in _KEYS))
            pipe.zrem(REGISTER_KEY, execution_id)
            pipe.execute()

    # What the reaper asks.

    def due(self, now: float) -> list[str]:
        """The executions that somebody should look after: past their deadline, or without progress for a while."""
        with translated():
            found: list[str] = self._redis.zrange(REGISTER_KEY, "-inf", now, byscore=True)  # type: ignore[assignment]
        return found

    def looked_after(self, execution_id: str, again: float) -> None:
        """Say when the reaper is to look again, in seconds since 1970, and that it has looked once more."""
        self._run_script("look", execution_id, ["run"], again)

    def strike_off(self, execution_id: str) -> None:
        """Stop looking after an execution of which nothing is known any more."""
        with translated():
            self._redis.zrem(REGISTER_KEY, execution_id)

    # What all batches of an execution need.

    def keep_context(self, context: Context) -> None:
        """Keep the shared context of an execution, for twenty minutes."""
        with translated():
            self._redis.set(_context_key(context.execution_id), context.model_dump_json(), ex=_CONTEXT_SECONDS)

    def at_hand(
        self, execution_id: str, organization_id: str, places: Sequence[str]
    ) -> tuple[Run | None, Context | None, dict[str, FileResult]]:
        """What a delivery of a batch begins with.

        Returns: what is known of the execution; the shared context, None if there is none, or one that cannot be read,
        or somebody else's; and those of these files that have ended, by their places: where it goes on.
        """
        with translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(key_of(execution_id, "run"))
            pipe.get(_context_key(execution_id))
            pipe.hmget(key_of(execution_id, "files"), places or [""])
            run, context, files = pipe.execute()
        ended = {place: text for place, text in zip(places, files, strict=False) if text is not None}
        results = {place: FileResult.model_validate_json(text) for place, text in ended.items()}
        return _run(run), Context.read(context, execution_id, organization_id), results

    def skip(self, execution_id: str, reasons: Mapping[str, str]) -> None:
        """Keep which files were left out, by their paths, and why; the execution's end says it."""
        self._put(execution_id, "skipped", reasons)

    def begin_creation(self, task_id: str) -> str | None:
        """Say that a message is about to create an execution. None if it was not before; then "", or the execution."""
        key = f"workers:message:{task_id}:created"
        with translated(), self._redis.pipeline() as pipe:
            pipe.get(key)
            pipe.set(key, "", nx=True, ex=TOMBSTONE_SECONDS)
            before: str | None = pipe.execute()[0]
        return before

    def created(self, task_id: str, execution_id: str) -> bool:
        """Remember which execution a message has created. False if it is another message's already."""
        owner = f"workers:message:of:{execution_id}"
        with translated(), self._redis.pipeline() as pipe:
            pipe.set(owner, task_id, nx=True, ex=TOMBSTONE_SECONDS)
            pipe.get(owner)
            ours: bool = pipe.execute()[1] == task_id
            if ours:
                self._redis.set(f"workers:message:{task_id}:created", execution_id, ex=TOMBSTONE_SECONDS)
        return ours

    def begin_notification(self, execution_id: str, notification_id: str) -> int:
        """Count a try to tell a webhook of the execution's end. Which try it is; 0 if it was told."""
        names = ["run", "notified"]
        return int(self._run_script("notify", execution_id, names, notification_id))

    def not_notified(self, execution_id: str, notification_id: str, tries: int) -> None:
        """Take that try back: the webhook cannot have been told by it."""
        self._put(execution_id, "notified", {notification_id: str(tries - 1)})

    def notified(self, execution_id: str, notification_id: str) -> None:
        """Remember that a webhook was told."""
        self._put(execution_id, "notified", {notification_id: "told"})


def _run(stored: Mapping[str, str]) -> Run | None:
    if "execution_id" not in stored:
        return None
    return Run(
        execution_id=stored["execution_id"],
        organization_id=stored["organization_id"],
        workflow_id=stored["workflow_id"],
        pipeline_id=stored.get("pipeline_id"),
        is_api=stored["is_api"] == "1",
        deadline=float(stored["deadline"]),
        batches=int(stored["batches"]) if "batches" in stored else None,
        files=int(stored.get("files", 0)),
        looks=int(stored.get("looks", 0)),
        request_id=stored.get(REQUEST_ID),
    )


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _context_key(execution_id: str) -> str:
    return f"context:{execution_id}"
