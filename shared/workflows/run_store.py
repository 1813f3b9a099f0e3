"""What is known of the runs of workflows, in the state store (`CACHE_REDIS_*`), below `workers:workflow:{run}:`.

While a run goes on, its keys live as long as it may take and an hour more; once it has ended, for the retention.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import redis

from shared.claims import Beginning, Claim, Lease
from shared.state_errors import translated
from shared.state_store import MARGIN_SECONDS, flat
from shared.workflows.errors import RunKeyError
from shared.workflows.run_reads import DEADLINES_KEY, REGISTER_KEY, RunReads, key_of
from shared.workflows.run_scripts import SCRIPTS
from shared.workflows.runs import Begun, Place, Run, event_of, run_of
from shared.workflows.shape import ON_FAILURE, RunStatus, StepState
from shared.workflows.views import PROGRESS, Event

_AT_ONCE = 2_000


class RunStore(RunReads):
    """Runs in Redis. Thread-safe. Every method raises StateStoreError where Redis cannot be asked.

    Args:
        client: the connection.
        stall: seconds without progress after which the sweeper looks after a run.
        retention: seconds for which an ended run is kept.
    """

    def __init__(self, client: redis.Redis, stall: float, retention: int) -> None:
        super().__init__(client)
        self._stall, self._retention = stall, retention
        self._scripts = {name: client.register_script(source) for name, source in SCRIPTS.items()}

    def claim(self, place: Place, seconds: float = 0) -> Claim:
        """That piece of work."""
        expiry = int(seconds) + MARGIN_SECONDS + self._retention
        return Claim(key_of(place.run_id, "").rstrip(":"), f"{place.output}:{place.attempt}", expiry)

    def work(self, place: Place, seconds: float) -> Claim:
        """The same, to take a lease on, with which the attempt begins, or goes on: `found` says what the lease tells.

        Args:
            place: which attempt.
            seconds: how long it may take from its first beginning.
        """
        own = (f"gate:{place.step}", f"arrived:{place.step}", "outputs", f"plan:{place.step}")
        keys = self._keys(place.run_id, *self._places(place), *own)
        common = self._common("begin", place.run_id, event_of(place, StepState.RUNNING))
        arguments = [*common, place.step, place.field, place.attempt, seconds, place.member]
        return replace(self.claim(place, seconds), beginning=Beginning(self._scripts["begin"], keys, arguments))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    # The life of a run.

    def start(self, run: Run) -> str | None:
        """Make a run known. The run that has its key, if one has.

        Raises:
            RunKeyError: that one has another input.
        """
        digest = hashlib.sha256(run.input_text.encode()).hexdigest() if run.run_key else ""
        known = {
            "workflow": run.shape.name,
            "shape": json.dumps(run.shape.as_json()),
            "input": run.input_text,
            "deadline": str(run.deadline),
            "began": f"{time.time():.3f}",
            "status": RunStatus.RUNNING,
            "organization_id": run.organization_id,
            "request_id": run.request_id,
            "run_key": run.run_key,
        }
        keys = [_key_of(run), REGISTER_KEY, key_of(run.run_id, "run"), key_of(run.run_id, "events")]
        event = Event(at=time.time(), state=RunStatus.RUNNING)
        fields = flat({name: str(value) for name, value in known.items() if value is not None})
        before = self._ask("start", keys, run, event, digest, *fields)
        if not before:
            return None
        found, _, other = before.partition(" ")
        if other != digest:
            raise RunKeyError(f"run {found} was started with run_key {run.run_key!r} and another input")
        return str(found)

    def withdraw(self, run: Run) -> None:
        """Give the key of a run back that never was on its way."""
        if run.run_key:
            with translated():
                self._redis.delete(_key_of(run))

    def queue(self, run: Run, step: str, items: Sequence[str] | None) -> None:
        """Say that a step goes out, and keep what it runs over."""
        self._put(run.run_id, f"plan:{step}", {str(at): item for at, item in enumerate(items or ())})
        event = Event(at=time.time(), state=StepState.QUEUED, step=step)
        self._ask("queue", self._keys(run.run_id, "events", "steps"), run, event, step, _count(items))

    def sent(self, run: Run, step: str) -> None:
        """Remember that all items of a step were sent."""
        self._put(run.run_id, f"gate:{step}", {"sent": "1"})

    @staticmethod
    def found(place: Place, lease: Lease | None) -> Begun:
        """What a delivery has found that has that lease."""
        found = lease.answer if lease else ["ended"]
        if lease is None or found[0] == "ended":
            return Begun("ended")
        run = run_of(place.run_id, _paired(found[2]))
        if found[0] == "done":
            return Begun("done", run, state=StepState(found[1]))
        if found[0] == "stale":
            return Begun("stale", run, attempt=int(found[1]))
        arrived = {who: StepState(state) for who, state in _paired(found[3]).items()}
        return Begun("taken", run, until=lease.taken + float(found[1]), parents=arrived, given=_paired(found[4]))

    def retry(self, run: Run, place: Place, reason: str) -> bool:
        """Go on to the next attempt; False: this one was given up before."""
        keys = self._keys(place.run_id, *self._places(place))
        event = event_of(place, StepState.RETRYING, reason)
        return bool(self._ask("retry", keys, run, event, place.step, place.field, place.attempt, "", place.member))

    def end(
        self, run: Run, place: Place, ended: tuple[StepState, str | None, str | None], waiting: Mapping[str, int | None]
    ) -> tuple[bool, dict[str, dict[str, StepState]]]:
        """Record the end of a step or an item, once.

        Args:
            run: whose.
            place: which; attempt 0 where it does not matter.
            ended: the state, the reason, and the output.
            waiting: the gates of those who wait for it, and how many arrivals each waits for; None for all its items.

        Returns: whether it is so by this; and the gates that are open now, with what has arrived there.
        """
        state, reason, output = ended
        gates = [name for gate in waiting for name in (f"gate:{gate}", f"arrived:{gate}")]
        keys = self._keys(place.run_id, *self._places(place), "outputs", *gates)
        told = [place.step, place.field, place.attempt, state, place.member, reason or ""]
        put = ["", ""] if output is None else [place.output, output]
        event = event_of(place, state, reason)
        answer = self._ask("end", keys, run, event, *told, *put, *map(_expected, waiting.values()))
        names, opened = list(waiting), {}
        for number, arrived in zip(answer[1::2], answer[2::2], strict=True):
            opened[names[number]] = {who: StepState(came) for who, came in _paired(arrived).items()}
        return answer[0] == 1, opened

    def finish(self, run: Run, status: RunStatus, reason: str | None = None) -> float | None:
        """End a run. The seconds that it took; None: it had ended."""
        event = Event(at=time.time(), state=status, reason=reason)
        mapped = [step.name for step in run.shape.steps if step.map_over]
        names = [
            "",
            *(step.name for step in run.shape.steps),
            ON_FAILURE,
            f"{ON_FAILURE}/",
            *(f"{name}/" for name in mapped),
        ]
        gates = [f"{what}:{name}" for what in ("gate", "arrived") for name in names]
        gone = ["claims", *gates, *(f"{what}:{name}" for what in ("plan", "items") for name in mapped)]
        kept = [*self._keys(run.run_id, "events", "outputs", "steps"), _key_of(run)]
        keys = [*kept, *(key_of(run.run_id, name) for name in gone)]
        took = self._ask("finish", keys, run, event, status, reason or "")
        return float(took) if took else None

    def forget_items(self, run_id: str, step: str, count: int) -> None:
        """The output of a step has them all."""
        with translated():
            for at in range(0, count, _AT_ONCE):
                fields = [f"{step}/{index}" for index in range(at, min(count, at + _AT_ONCE))]
                self._redis.hdel(key_of(run_id, "outputs"), *fields)

    def progress(self, run_id: str, event: Event) -> None:
        """Keep what a step says of itself."""
        said = {name: getattr(event, name) for name in ("done", "total", "message")}
        fields = {f"{event.step}:{name}": str(value) for name, value in said.items() if value is not None}
        about = fields if event.index is None else {}
        self._ask(
            "progress", self._keys(run_id, "events", "steps"), run_id, replace(event, state=PROGRESS), *flat(about)
        )

    def note(self, run: Run, step: str, **values: object) -> None:
        """Keep more of a step."""
        known = {f"{step}:{name}": str(value) for name, value in values.items() if value is not None}
        self._put(run.run_id, "steps", known)

    def strike_off(self, place: Place) -> None:
        """Nobody waits for that attempt any more."""
        with translated():
            self._redis.zrem(DEADLINES_KEY, place.member)

    def looked_after(self, run: Run | str, again: float) -> None:
        """Say when the sweeper is to look again, in seconds since 1970, and that it has looked once more."""
        with translated():
            if isinstance(run, str):
                self._redis.zrem(REGISTER_KEY, run)
            else:
                self._redis.zadd(REGISTER_KEY, {run.run_id: again}, xx=True)
                self._put(run.run_id, "run", {"looks": str(run.looks + 1)})

    def _expiry(self, run: Run) -> int:
        return int(max(0.0, run.deadline - time.time())) + MARGIN_SECONDS + self._retention

    def _put(self, run_id: str, name: str, values: Mapping[str, str]) -> None:
        pairs = flat(values)
        with translated():
            for at in range(0, len(pairs), _AT_ONCE):
                self._scripts["put"](keys=self._keys(run_id, name), args=pairs[at : at + _AT_ONCE])

    def _ask(self, script: str, keys: Sequence[str], run: Run | str, event: Event, *arguments: Any) -> Any:
        with translated():
            return self._scripts[script](keys=list(keys), args=[*self._common(script, run, event), *arguments])

    def _common(self, script: str, run: Run | str, event: Event) -> list[Any]:
        run_id = run if isinstance(run, str) else run.run_id
        kept = {"finish": self._retention, "start": self._expiry(run)} if isinstance(run, Run) else {}
        return [run_id, time.time() + self._stall, kept.get(script, 0), json.dumps(event.as_json())]

    @staticmethod
    def _keys(run_id: str, *names: str) -> list[str]:
        named = (DEADLINES_KEY if name == "deadlines" else key_of(run_id, name) for name in names)
        return [key_of(run_id, "ended"), REGISTER_KEY, key_of(run_id, "run"), *named]

    @staticmethod
    def _places(place: Place) -> tuple[str, ...]:
        own = "steps" if place.index is None else f"items:{place.step}"
        return ("events", "steps", own, "deadlines")


def _key_of(run: Run) -> str:
    if not run.run_key:
        return key_of(run.run_id, "run")
    name = json.dumps([run.shape.name, run.organization_id, run.run_key])
    return f"workers:workflow:key:{hashlib.sha256(name.encode()).hexdigest()}"


def _paired(flattened: Sequence[str]) -> dict[str, str]:
    return dict(zip(flattened[::2], flattened[1::2], strict=True))


def _count(items: Sequence[str] | None) -> str:
    return "" if items is None else str(len(items))


def _expected(count: int | None) -> str:
    return "" if count is None else str(count)
