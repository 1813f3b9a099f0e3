"""A backend that takes almost no time: the internal API's answers for API executions, from memory, on one event loop.

What is measured against it is the workers; against the reference backend, which is Django, it is mostly Django. It
knows no tenants and no rules: every execution that it is asked for exists, PENDING, with the shapes of the contract
(sections 2 and 3). One counts as done only if it is COMPLETED with every file; how many ended otherwise is said. The
tool of every file takes `tool_seconds`, and its request is answered when it has ended.

Its own: `PUT /swift/settings` (`{tool_seconds, batches}`), `GET /swift/ended/{n}` (answered once n executions have
ended: `{ended, failed, at}`, the clock's seconds at which the last of them ended), `GET /swift/requests` (how many of
which), `GET /swift/executions` (`{id: {done, at, ended, files: {name: {"/execute", "/status"}}}}`: how often it was
ended, when first, how many of its files had ended then, and how often what was asked for each), `PUT /swift/forget`
(those).
"""

import asyncio
import json
import re
import sys
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.http_server import Reply, serve

_ID = re.compile(r"(?<=/)[0-9a-f]{8}-[0-9a-f-]{27}(?=/|$)")
_WORKFLOW = str(uuid.UUID(int=7))
_FIXED = {
    "GET v1/workflow-manager/workflow/{id}/tool-instances/": {"tool_instances": [{"id": "1", "tool_id": "echo"}]},
    "POST v1/tool-execution/validate/": {"success": True, "errors": []},
    "GET v1/webhook/pipeline/{id}/notifications/": {"notifications": [], "pipeline_name": "swift"},
}


@dataclass(slots=True)
class _Seen:
    """An execution; see `GET /swift/executions`."""

    done: int = 0
    at: float | None = None
    ended: int = 0
    total: int = 0
    files: dict[str, dict[str, int]] = field(default_factory=dict)


class _Backend:
    """What is remembered."""

    def __init__(self) -> None:
        self.settings = {"tool_seconds": 0.0, "batches": 1}
        self.requests: Counter[str] = Counter()
        self.seen: defaultdict[str, _Seen] = defaultdict(_Seen)
        self.rows: dict[str, dict[str, int]] = {}
        self.ended: dict[str, float] = {}
        self.failed = 0
        self.waiting: list[tuple[int, Reply]] = []

    def answer(self, method: str, path: str, body: bytes, reply: Reply) -> None:
        """Have `reply` called with the answer, now or later."""
        if path.startswith("/swift/"):
            self._own(path.split("/")[2:], body, reply)
            return
        path = path.partition("?")[0].removeprefix("/internal/")
        found = _ID.search(f"/{path}")
        named = found[0] if found else ""
        label = f"{method} {path.replace(named, '{id}') if named else path}"
        self.requests[label] += 1
        if label == "POST v1/workflow-manager/execute-file/":
            said = {"status": "COMPLETED", "result": {"text": "done"}, "metadata": {"pages": 1}, "execution_time": 0.0}
            key = json.loads(body)["file_data"]["file_execution_id"]
            self._count(key, "/execute")
            later = asyncio.get_running_loop().call_later
            later(self.settings["tool_seconds"], reply, {**said, "file_execution_id": key})
        else:
            found = self._at_once(label, named, body)
            reply(found if found is not None else {"error": f"there is no {label}"}, 200 if found is not None else 404)

    def _at_once(self, label: str, named: str, body: bytes) -> Any:
        if label == "GET v1/workflow-execution/{id}/":
            return self._execution(named)
        if label == "POST v1/workflow-execution/{id}/update_status/":
            return self._update(named, json.loads(body))
        if label == "POST v1/file-execution/":
            return self._row(json.loads(body))
        if label == "POST v1/file-execution/{id}/status/":
            self._count(named, "/status" if json.loads(body)["status"] == "COMPLETED" else "/failed")
            return {"status": "updated", "file_execution_id": named}
        if label.startswith("GET v1/configuration/"):
            return {"data": {"value": self.settings["batches"]}}
        return _FIXED.get(label)

    def _row(self, said: dict[str, Any]) -> Any:
        """The same file of an execution has the same row."""
        name, files = said["file_hash"]["file_name"], self.seen[said["execution_id"]].files
        key = str(uuid.uuid5(uuid.UUID(said["execution_id"]), name))
        self.rows[key] = files.setdefault(name, {"/execute": 0, "/status": 0})
        status = "COMPLETED" if self.rows[key]["/status"] else ""
        return {"id": key, "status": status, "file_name": name, "file_size": 27}

    def _count(self, key: str, what: str) -> None:
        if key in self.rows:
            self.rows[key][what] = self.rows[key].get(what, 0) + 1

    def _execution(self, named: str) -> Any:
        seen = self.seen[named]
        status = "COMPLETED" if seen.done else "EXECUTING" if seen.total else "PENDING"
        execution = {"id": named, "workflow_id": _WORKFLOW, "status": status, "total_files": seen.total}
        return {
            "execution": {**execution, "attempts": 0, "created_at": "2026-11-21T05:00:00Z", "tags": []},
            "workflow_definition": {"workflow_id": _WORKFLOW, "workflow_name": "swift", "workflow_type": "API"},
            "source_config": {"is_api": True, "type": "API"},
            "destination_config": {"connection_type": "API", "is_api": True},
            "organization_context": {"organization_id": "swift", "organization_name": "swift"},
            "file_executions": [],
        }

    def _update(self, named: str, said: dict[str, Any]) -> Any:
        seen = self.seen[named]
        seen.total = said.get("total_files") or 0
        if said["status"] in {"COMPLETED", "ERROR"}:
            whole = said["status"] == "COMPLETED" and said.get("successful_files") == seen.total
            seen.done += whole
            self.failed += not whole
            if named not in self.ended:
                seen.ended = sum(bool(one["/status"]) for one in seen.files.values())
                self.ended[named] = seen.at = time.monotonic()
            ready = [one for one in self.waiting if one[0] <= len(self.ended)]
            self.waiting = [one for one in self.waiting if one[0] > len(self.ended)]
            for _, reply in ready:
                reply(self._how_many())
        return {"status": "updated", "execution_id": named, "new_status": said["status"]}

    def _how_many(self) -> Any:
        return {"ended": len(self.ended), "failed": self.failed, "at": max(self.ended.values(), default=0.0)}

    def _own(self, what: list[str], body: bytes, reply: Reply) -> None:
        if what[0] == "settings":
            self.settings.update(json.loads(body))
        if what[0] == "ended" and len(self.ended) < int(what[1]):
            self.waiting.append((int(what[1]), reply))
            return
        if what[0] == "executions":
            reply({named: {**asdict(seen), "files": seen.files} for named, seen in self.seen.items()})
            return
        if what[0] == "forget":
            self.seen.clear()
            self.rows.clear()
        reply({"requests": self.requests} if what[0] == "requests" else self._how_many())


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), _Backend().answer, Path(sys.argv[2]).touch))
