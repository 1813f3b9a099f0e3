"""What a user of the platform does: set up a deployment, post documents, watch them, fetch the results."""

import mimetypes
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import httpx
import redis

from sandbox.stack import StackError

_TERMINAL = frozenset({"COMPLETED", "STOPPED", "ERROR"})
LONGEST_RUN_SECONDS = 900
_LOOK_SECONDS = 0.1
_UNSENDABLE = re.compile(r"[^\w .()+,=@-]")
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Deployment:
    """An API deployment of an organization, and the key that calls it."""

    organization_id: str
    workflow_id: str
    api_name: str
    api_key: str

    @property
    def path(self) -> str:
        """Where users post documents."""
        return f"/deployment/api/{self.organization_id}/{self.api_name}/"


@dataclass(slots=True)
class Run:
    """One execution while it is watched.

    Attributes:
        names: the names that documents were posted under, and those they were given by.
        files: what the backend says of each, by its given name.
        progress: where the workers say that each is, by its given name, while they are at it.
        stages: the seconds from the start at which each stage was first seen.
    """

    execution_id: str
    names: Mapping[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    execution: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: dict[str, str] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)

    def see(self, seen: Mapping[str, Any]) -> None:
        """Take in what the backend says now."""
        self.execution = dict(seen["execution"])
        self.files = {self.names.get(row["file_name"], row["file_name"]): row for row in seen["files"]}
        statuses = {row["status"] for row in seen["files"]}
        self._mark("started", self.execution["status"] != "PENDING")
        self._mark("first file", bool(statuses & {"EXECUTING", "COMPLETED", "ERROR"}))
        ended = sum(row["status"] in _TERMINAL for row in seen["files"])
        self._mark("last file", ended >= (self.execution["total_files"] or 0))
        self._mark("ended", self.ended)

    def states(self) -> dict[str, str]:
        """Where each file is, by its given name: as the workers say, until the backend says that it has ended."""
        return {name: self._state(name) for name in self.names.values()}

    def _state(self, name: str) -> str:
        status = self.files.get(name, {}).get("status")
        told = None if status in _TERMINAL else self.progress.get(name)
        return told or status or "waiting"

    @property
    def ended(self) -> bool:
        """Whether the execution is terminal."""
        return self.execution.get("status") in _TERMINAL

    def _mark(self, stage: str, reached: bool) -> None:
        if reached:
            self.stages.setdefault(stage, time.monotonic() - self.started)


class Platform(Protocol):
    """What a user needs to know of where workers and the reference backend run: of a `Stack`, or of containers.

    Attributes:
        backend_url: base address of the reference backend.
        key: the key to its internal API.
        redis_url: the state store, which tells of progress where it can be reached.
    """

    backend_url: str
    key: str
    redis_url: str

    def check(self) -> None:
        """Raise StackError if a part has ended."""


class Driver:
    """A user of the platform's reference backend."""

    def __init__(self, platform: Platform) -> None:
        self._check = platform.check
        self._redis = redis.Redis.from_url(platform.redis_url, decode_responses=True)
        self._control = _bearer(platform.key)
        self._http = httpx.Client(base_url=platform.backend_url, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()
        self._redis.close()

    def control(self, method: str, path: str, json: Any = None) -> dict[str, Any]:
        """Ask one of the backend's `/sandbox/` routes."""
        answer = self._http.request(method, f"/sandbox/{path}", json=json, headers=self._control)
        return _json(answer)

    def internal(self, method: str, path: str, organization: str, json: Any = None) -> dict[str, Any]:
        """Ask the internal API, as a worker would."""
        headers = {**self._control, "X-Organization-ID": organization}
        return _json(self._http.request(method, f"/internal/{path}", json=json, headers=headers))

    def deploy(self, organization: str, batches: int) -> Deployment:
        """Make an organization with an API deployment."""
        wanted = {
            "organization": organization,
            "workflow_type": "API",
            "name": organization,
            "max_parallel_file_batches": batches,
        }
        made = self.control("POST", "setup/", wanted)
        return Deployment(**{name: made[name] for name in Deployment.__slots__})

    def post(self, deployment: Deployment, documents: Mapping[str, Path], **options: str) -> Run:
        """Post documents by the names they are given, with options of the API; does not wait for their end."""
        names = _sendable(documents)
        answer = self._http.post(
            deployment.path,
            data={"timeout": "-1", **options},
            files=_parts(names, documents),
            headers=_bearer(deployment.api_key),
        )
        return Run(_json(answer)["execution_id"], names)

    def stage(self, deployment: Deployment, name: str, document: Path) -> dict[str, Any]:
        """Have an execution made of one document that no worker is told of.

        Returns: `{execution_id, workflow_id, file}`, the file as a message would have told of it.
        """
        parts = _parts(_sendable([name]), {name: document})
        path = f"/sandbox/staged/{deployment.organization_id}/{deployment.api_name}/"
        answer = _json(self._http.post(path, files=parts, headers=self._control))
        (file,) = answer.pop("files").values()
        return {**answer, "file": file}

    def start_pipeline(self, made: Mapping[str, Any]) -> Run:
        """Start the pipeline that `setup/` made."""
        path = f"/pipeline/api/{made['organization_id']}/{made['pipeline_id']}/"
        return Run(_json(self._http.post(path, headers=_bearer(made["api_key"])))["execution_id"])

    def watch(self, run: Run, seconds: float = LONGEST_RUN_SECONDS) -> Iterator[Run]:
        """Look again and again until the execution has ended.

        Raises:
            StackError: it did not within `seconds`, or a part of the stack ended.
        """
        until = time.monotonic() + seconds
        while not run.ended:
            if time.monotonic() > until:
                raise StackError(f"execution {run.execution_id} has not ended within {seconds:g} s")
            self._check()
            run.see(self.control("GET", f"executions/{run.execution_id}/"))
            run.progress = self._progress(run)
            yield run
            time.sleep(_LOOK_SECONDS)

    def _progress(self, run: Run) -> dict[str, str]:
        """Where the workers say that files are; nothing while they cannot be asked."""
        with suppress(redis.RedisError):
            stages = cast("dict[str, str]", self._redis.hgetall(f"workers:execution:{run.execution_id}:stages"))
            names = {place: place.split("/", 2)[2] for place in stages}
            return {run.names.get(names[place], names[place]): stage for place, stage in stages.items()}
        return {}

    def results(self, deployment: Deployment, run: Run) -> dict[str, dict[str, Any]]:
        """The results as the public endpoint gives them, by file name."""
        answer = self._http.get(
            deployment.path, params={"execution_id": run.execution_id}, headers=_bearer(deployment.api_key)
        )
        found: Sequence[dict[str, Any]] = answer.json()["message"]["result"] or []
        return {run.names.get(item["file"], item["file"]): item for item in found}


def _sendable(given: Iterable[str]) -> dict[str, str]:
    """Names that arrive as they were sent, each for a given one: quotes, slashes and entities do not survive a form."""
    found: dict[str, str] = {}
    for name in given:
        sent = _UNSENDABLE.sub("_", name)[-_LONGEST_NAME:]
        while sent in found:
            sent = f"_{sent}"
        found[sent] = name
    return found


def _parts(names: Mapping[str, str], documents: Mapping[str, Path]) -> list[tuple[str, Any]]:
    """A form's files: documents by their given names, under those that are sent."""
    return [
        ("files", (name, documents[given].read_bytes(), mimetypes.guess_type(name)[0])) for name, given in names.items()
    ]


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _json(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise StackError(f"{answer.request.url.path} answered {answer.status_code}: {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found
