"""What is kept of an execution's files: how they ended, what was pushed to the backend, and where they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.models import FileResult, Stage
from shared.state_errors import translated
from shared.state_store import StateStore, key_of

_RESULTS_SECONDS = 86_400  # contract section 2
LOOK_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Begun:
    """A file that may begin.

    Attributes:
        stopped: the terminal status of its execution, if that is known: then it has not begun.
        ask: whether the backend is to be asked first if the execution was stopped, once in five seconds: nor then.
        started: when the file was first started, by the clock of the first who said so.
    """

    stopped: str | None
    ask: bool
    started: float


class FileState(StateStore):
    """The files of executions, each by its place: whatever names it within its execution for ever."""

    def begin_file(self, execution_id: str, place: str, now: float) -> Begun:
        """Say that a file begins, at `now`, unless its execution is stopped."""
        about = [place, str(now), Stage.STARTED, LOOK_SECONDS]
        keys = ["run", "look", "started", "stages"]
        status, ask, started = self._run_script("begin_file", execution_id, keys, *about)
        return Begun(status or None, bool(ask), float(started))

    def stop(self, execution_id: str, status: str) -> None:
        """Remember, until the backend is asked again, that it calls the execution terminal: no file of it begins."""
        with translated():
            self._redis.set(key_of(execution_id, "look"), status, ex=LOOK_SECONDS)

    def record_file(self, execution_id: str, place: str, result: FileResult) -> None:
        """Remember how a file ended; the first end is kept."""
        about = [place, result.model_dump_json(), Stage.DONE]
        self._run_script("end_file", execution_id, ["run", "files", "stages"], *about)

    def forget_files(self, execution_id: str, places: Sequence[str]) -> None:
        """Delete what is remembered of these files."""
        with translated(), self._redis.pipeline() as pipe:
            for what in ("files", "started", "stages"):
                pipe.hdel(key_of(execution_id, what), *places)
            pipe.execute()

    def push_api_result(
        self, workflow_id: str, execution_id: str, file_execution_id: str, item: Mapping[str, Any], place: str = ""
    ) -> bool:
        """Hand a file's result to the backend (contract section 2). False if an earlier delivery did.

        With its place, those who watch are told that it is being stored.
        """
        keys = [key_of(execution_id, name) for name in ("ended", "pushed", "stages")]
        keys.append(f"api_results:{workflow_id}:{execution_id}")
        arguments: list[Any] = [file_execution_id, json.dumps(dict(item)), self._expiry, _RESULTS_SECONDS]
        arguments += [place, Stage.STORING] if place else []
        with translated():
            return bool(self._scripts["push"](keys=keys, args=arguments))

    def keep_cached(self, execution_id: str, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what the history has of files, by their hash, for the batches that they are in."""
        self._put(execution_id, "cached", {key: json.dumps(dict(history)) for key, history in found.items()})

    def cached(self, execution_id: str, file_hash: str) -> dict[str, Any] | None:
        """What the history has of a file."""
        with translated():
            stored: str | None = self._redis.hget(key_of(execution_id, "cached"), file_hash)  # type: ignore[assignment]
        return json.loads(stored) if stored else None

    # Progress, for those who watch: never a reason to fail.

    def stage(self, execution_id: str, place: str, stage: Stage) -> None:
        """Say where a file is, by its place. Of an execution that has ended nothing is kept."""
        self._put(execution_id, "stages", {place: stage})

    def stages(self, execution_id: str) -> dict[str, Stage]:
        """Where the files of an execution are that have begun, by their places."""
        with translated():
            found: dict[str, str] = self._redis.hgetall(key_of(execution_id, "stages"))  # type: ignore[assignment]
        return {place: Stage(stage) for place, stage in found.items()}
