"""What is kept of an execution's files: how they ended, what was pushed to the backend, and where they are."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shared.models import FileResult, Stage
from shared.state_errors import translated
from shared.state_store import StateStore, key_of

_RESULTS_SECONDS = 86_400  # contract section 2


class FileState(StateStore):
    """The files of executions, each by its place: whatever names it within its execution for ever."""

    def file_results(self, execution_id: str, places: Sequence[str]) -> dict[str, FileResult]:
        """The files that have ended, by their places: where a later delivery of a batch goes on."""
        if not places:
            return {}
        with translated():
            stored: list[str | None] = self._redis.hmget(key_of(execution_id, "files"), places)  # type: ignore[assignment]
        found = zip(places, stored, strict=True)
        return {place: FileResult.model_validate_json(text) for place, text in found if text is not None}

    def file_started(self, execution_id: str, place: str, now: float) -> float:
        """When a file was first started, by the clock of `now`; the first caller's `now` is kept."""
        self._put(execution_id, "started", {place: str(now)}, once=True)
        with translated():
            found: str | None = self._redis.hget(key_of(execution_id, "started"), place)  # type: ignore[assignment]
        return float(found) if found else now

    def record_file(self, execution_id: str, place: str, result: FileResult) -> None:
        """Remember how a file ended; the first end is kept."""
        self._put(execution_id, "files", {place: result.model_dump_json()}, once=True)

    def forget_files(self, execution_id: str, places: Sequence[str]) -> None:
        """Delete what is remembered of these files."""
        with translated(), self._redis.pipeline() as pipe:
            for what in ("files", "started", "stages"):
                pipe.hdel(key_of(execution_id, what), *places)
            pipe.execute()

    def push_api_result(
        self, workflow_id: str, execution_id: str, file_execution_id: str, item: Mapping[str, Any]
    ) -> bool:
        """Hand a file's result to the backend (contract section 2). False if an earlier delivery did."""
        keys = [key_of(execution_id, name) for name in ("ended", "pushed")] + [
            f"api_results:{workflow_id}:{execution_id}"
        ]
        arguments: list[Any] = [file_execution_id, json.dumps(dict(item)), self._expiry, _RESULTS_SECONDS]
        with translated():
            return bool(self._scripts["push"](keys=keys, args=arguments))

    def keep_cached(self, execution_id: str, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what the history has of files, by their hash, for the batches that they are in."""
        if found:
            texts = {key: json.dumps(dict(history)) for key, history in found.items()}
            self._put(execution_id, "cached", texts)

    def cached(self, execution_id: str, file_hash: str) -> dict[str, Any] | None:
        """What the history has of a file."""
        with translated():
            stored: str | None = self._redis.hget(key_of(execution_id, "cached"), file_hash)  # type: ignore[assignment]
        return json.loads(stored) if stored else None

    # Progress, for those who watch: never a reason to fail.

    def stage(self, execution_id: str, stages: Mapping[str, Stage]) -> None:
        """Say where files are, by their places. Of an execution that has ended nothing is kept."""
        if stages:
            self._put(execution_id, "stages", dict(stages))

    def stages(self, execution_id: str) -> dict[str, Stage]:
        """Where the files of an execution are, by their places."""
        with translated():
            found: dict[str, str] = self._redis.hgetall(key_of(execution_id, "stages"))  # type: ignore[assignment]
        return {place: Stage(stage) for place, stage in found.items()}
