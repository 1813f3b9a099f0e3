"""The server that all peers ask, and that counts what they ask: `python -m tests.benchmarks.peers.server PORT`.

`POST /create`, `/execute`, `/status` take `{"job", "file", ...}`, `POST /done` takes `{"job", ...}`; each answers about
300 bytes. What comes before the dash in a job's id is its kind. Whoever measures asks:

- `POST /reset` `{"delay"}`: forget everything; from now on `/execute` takes `delay` seconds.
- `POST /wait` `{"kind", "jobs", "begun", "seconds"}`: answered as soon as so many jobs of that kind are done or so
  many of their executions have begun, or the time is over, with `{"done", "begun", "requests", "last"}`: jobs done,
  executions begun, requests of all four, and when the last job was done for the first time (CLOCK_MONOTONIC, which all
  processes of a machine share).
- `POST /seen` `{"kind"}`: `{"done": {job: how often}, "ended": {job: files that had ended when it was done first},
  "files": {job: {file: {path: how often}}}}`.
"""

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.http_server import Reply, serve

_STEPS = ("/create", "/execute", "/status")
_FILLING = "y" * 240


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who wants to know when so much has been seen."""

    kind: str
    jobs: int
    begun: int
    told: asyncio.Event


class Seen:
    """What has been asked since the last reset."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.done: dict[str, Counter[str]] = defaultdict(Counter)
        self.files: dict[str, dict[str, dict[int, Counter[str]]]] = defaultdict(lambda: defaultdict(dict))
        self.begun: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.ended: dict[str, dict[str, int]] = defaultdict(dict)
        self.last: dict[str, float] = {}
        self.waiting: list[Waiting] = []

    def count(self, path: str, body: dict[str, Any]) -> None:
        job = body["job"]
        kind = job.partition("-")[0]
        self.requests[kind] += 1
        if path == "/done":
            if not self.done[kind][job]:
                self.last[kind] = time.monotonic()
                self.ended[kind][job] = sum(asked["/status"] > 0 for asked in self.files[kind][job].values())
            self.done[kind][job] += 1
        else:
            self.files[kind][job].setdefault(body["file"], Counter())[path] += 1
        self._look()

    def begin(self, job: str) -> None:
        """An execution begins: who waits for that many finds at least this one under way."""
        self.begun[job.partition("-")[0]] += 1
        self._look()

    def _look(self) -> None:
        for one in self.waiting:
            if self.enough(one):
                one.told.set()

    def enough(self, of: Waiting) -> bool:
        return len(self.done[of.kind]) >= of.jobs or self.begun[of.kind] >= of.begun

    def summary(self, kind: str) -> dict[str, Any]:
        return {
            "done": len(self.done[kind]),
            "begun": self.begun[kind],
            "requests": self.requests[kind],
            "last": self.last.get(kind),
        }


class Server:
    """The state behind all connections."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body. What a request counts for is counted when it ends, whoever still listens."""
        seen = self.seen
        if path in _STEPS or path == "/done":
            if path == "/execute":
                seen.begin(body["job"])
                await asyncio.sleep(seen.delay)
            seen.count(path, body)
            return 200, {"job": body["job"], "file": body.get("file"), "status": "OK", "data": _FILLING}
        control: dict[str, Callable[[dict[str, Any]], Any]] = {
            "/reset": self._reset,
            "/wait": self._wait,
            "/seen": self._tell,
        }
        return (200, await control[path](body)) if path in control else (404, {})

    async def _reset(self, body: dict[str, Any]) -> dict[str, Any]:
        self.seen = Seen(float(body["delay"]))
        return {}

    async def _wait(self, body: dict[str, Any]) -> dict[str, Any]:
        seen = self.seen
        one = Waiting(body["kind"], body["jobs"], body["begun"], asyncio.Event())
        if not seen.enough(one):
            seen.waiting.append(one)
            with suppress(TimeoutError):
                await asyncio.wait_for(one.told.wait(), body["seconds"])
            seen.waiting.remove(one)
        return seen.summary(one.kind)

    async def _tell(self, body: dict[str, Any]) -> dict[str, Any]:
        seen, kind = self.seen, body["kind"]
        return {"done": seen.done[kind], "ended": seen.ended[kind], "files": seen.files[kind]}


async def main(port: int) -> None:
    """Serve on loopback until the process is told to end."""
    server, tasks = Server(), set[asyncio.Task[None]]()

    async def reply_to(path: str, body: bytes, reply: Reply) -> None:
        status, answer = await server.answer(path, json.loads(body or b"{}"))
        reply(answer, status)

    def answer(_method: str, path: str, body: bytes, reply: Reply) -> None:
        task = asyncio.get_running_loop().create_task(reply_to(path, body, reply))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await serve(port, answer)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
