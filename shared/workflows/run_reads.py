"""What is asked of the runs of workflows in the state store: by steps, by those who watch, and by the sweeper."""

import json
import time
from dataclasses import replace
from typing import Any

import redis

from shared.state_errors import translated
from shared.workflows.errors import UnknownRunError
from shared.workflows.runs import Place, Run, grouped, run_of, step_view
from shared.workflows.shape import ON_FAILURE, RunStatus
from shared.workflows.views import Event, RunView

REGISTER_KEY = "workers:workflows"
DEADLINES_KEY = "workers:workflows:deadlines"


class RunReads:
    """Runs in Redis, to look at. Thread-safe. Every method raises StateStoreError where Redis cannot be asked."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def run(self, run_id: str) -> Run | None:
        """What is known of a run that has not ended."""
        with translated(), self._redis.pipeline() as pipe:
            pipe.exists(key_of(run_id, "ended"))
            pipe.hgetall(key_of(run_id, "run"))
            ended, known = pipe.execute()
        return None if ended or not known else run_of(run_id, known)

    def output(self, run_id: str, step: str) -> str | None:
        """The output of a step."""
        return self._hash_field(run_id, "outputs", step)

    def item_outputs(self, run_id: str, step: str, count: int) -> list[str]:
        """The outputs of all items of a step, in order."""
        fields = [f"{step}/{index}" for index in range(count)]
        with translated():
            found: Any = self._redis.hmget(key_of(run_id, "outputs"), fields) if fields else []
        return [text or "null" for text in found]

    def items(self, run_id: str, step: str) -> dict[str, dict[str, str]]:
        """What is known of the items of a step that have begun, by their numbers."""
        with translated():
            stored: dict[str, str] = self._redis.hgetall(key_of(run_id, f"items:{step}"))  # type: ignore[assignment]
        return grouped(stored)

    def attempt(self, run_id: str, step: str) -> int:
        """Which attempt a step is at."""
        return int(self._hash_field(run_id, "steps", f"{step}:attempt") or 1)

    def ended(self, run_id: str) -> bool:
        """Whether a run has ended."""
        with translated():
            return bool(self._redis.exists(key_of(run_id, "ended")))

    def view(self, run_id: str) -> RunView:
        """A run as those outside see it.

        Raises:
            UnknownRunError: there is none.
        """
        with translated(), self._redis.pipeline() as pipe:
            pipe.hgetall(key_of(run_id, "run"))
            pipe.hgetall(key_of(run_id, "steps"))
            known, steps = pipe.execute()
        if not known:
            raise _unknown(run_id)
        run, status, found = run_of(run_id, known), RunStatus(known["status"]), grouped(steps)
        names = [step.name for step in run.shape.steps] + [ON_FAILURE] * (ON_FAILURE in found)
        return RunView(
            run_id=run_id,
            workflow=run.shape.name,
            status=status,
            began=float(known["began"]),
            ended=float(known["ended"]) if "ended" in known else None,
            steps={name: step_view(found.get(name, {}), status) for name in names},
            reason=known.get("reason"),
            leaves=tuple(leaf.name for leaf in run.shape.leaves),
        )

    def events(self, run_id: str, after: str | None, seconds: float) -> list[Event]:
        """What changed behind that event; waits so long for the first."""
        key, since = key_of(run_id, "events"), after or "0-0"
        with translated():
            # Who has seen an event of it need not ask, as long as there are more.
            if after is None and not self._redis.exists(key):
                raise _unknown(run_id)
            wait = max(1, int(seconds * 1_000))
            found: Any = self._redis.xread({key: since}, block=wait)
            if not found and not self._redis.exists(key):
                raise _unknown(run_id)
        entries = found[0][1] if isinstance(found, list) and found else (found or {}).get(key, [[]])[0]
        return [replace(Event(**json.loads(fields["event"])), id=name) for name, fields in entries]

    def due(self) -> list[str]:
        """The runs that somebody should look after."""
        with translated():
            found: Any = self._redis.zrange(REGISTER_KEY, "-inf", time.time(), byscore=True)
        return list(found)

    def begun(self) -> list[tuple[Place, bool]]:
        """The attempts that have begun and not ended, and of each whether its time is over."""
        with translated():
            clock: Any = self._redis.time()
            found: Any = self._redis.zrange(DEADLINES_KEY, 0, -1, withscores=True)
        now = clock[0] + clock[1] / 1e6
        return [(Place(*json.loads(member)), float(until) <= now) for member, until in found]

    def _hash_field(self, run_id: str, name: str, field: str) -> str | None:
        with translated():
            found: str | None = self._redis.hget(key_of(run_id, name), field)  # type: ignore[assignment]
        return found


def key_of(run_id: str, what: str) -> str:
    """A key of a run."""
    return f"workers:workflow:{run_id}:{what}"


def _unknown(run_id: str) -> UnknownRunError:
    return UnknownRunError(f"there is no run {run_id}, or it ended longer ago than WORKFLOW_RETENTION_SECONDS")
