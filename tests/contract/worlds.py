"""The two backends that cases are held against: the recordings of the real one, and the reference backend.

A case stands for one recording: it makes that request by a method of our client. The recordings answer only what was
recorded, to a request that says what was said then. The reference backend is taken through all recordings in their
order, those with a case through our client, so that each case meets the rows that the recording met.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import respx
from pydantic import BaseModel

from shared.api_client import InternalAPIClient, OrganizationAPI
from shared.endpoints import EMISSION, HEALTH
from shared.errors import WorkerError
from tests.contract.recordings import BY_NAME, RECORDINGS, body_of, same
from tests.fakes import settings
from tests.integration.sandbox.conftest import KEY
from tests.integration.sandbox.test_recordings import INDEX, Replay

NOWHERE = "http://backend.invalid/internal"
ORGANIZATION = BY_NAME["health.ok"]["request_headers"]["X-Organization-ID"]


def client_of(url: str, key: str = KEY) -> InternalAPIClient:
    """A client that asks once, and whose circuits stay closed whatever it hears."""
    return InternalAPIClient(
        settings(
            INTERNAL_API_BASE_URL=url,
            INTERNAL_SERVICE_API_KEY=key,
            INTERNAL_API_RETRY_ATTEMPTS="1",
            CIRCUIT_BREAKER_MINIMUM_VOLUME="1000",
            CIRCUIT_BREAKER_FAILURE_THRESHOLD="1000",
        )
    )


@dataclass(frozen=True)
class Asker:
    """Who makes a case's request. Called with a recorded id, it gives the one that stands for it."""

    client: InternalAPIClient
    api: OrganizationAPI
    of: Callable[[str], str] = same

    def __call__(self, recorded: str) -> str:
        return self.of(recorded)


@dataclass(frozen=True)
class Case:
    """One recording, made by our client.

    Attributes:
        call: the request.
        says: a part of what the method returns, or the error it raises and a part of its text.
        more: whether we send fields that the recorded request did without.
    """

    call: Callable[[Asker], Any]
    says: Any
    more: bool = False

    def outcome(self, url: str, recording: Mapping[str, Any], of: Callable[[str], str] = same) -> Any:
        """What comes of it: a value, or one of our errors. Who asks is whoever asked when it was recorded."""
        headers = recording["request_headers"]
        key = headers["Authorization"].removeprefix("Bearer ").replace("<key>", KEY)
        with client_of(url, key) as client:
            api = client.for_organization(headers.get("X-Organization-ID", ORGANIZATION))
            try:
                return self.call(Asker(client, api, of))
            except WorkerError as error:
                return error


def bare(value: Any) -> Any:
    """A body without what says nothing: nulls, and what is not so."""
    if isinstance(value, dict):
        return {name: bare(inner) for name, inner in value.items() if inner is not None and inner is not False}
    return [bare(item) for item in value] if isinstance(value, list) else value


def beyond(ours: Any, recorded: Any, more: bool, at: str = "body") -> Iterator[str]:
    """What we say otherwise than was recorded, or besides; of a list we may send the beginning."""
    if isinstance(ours, dict) and isinstance(recorded, dict):
        for name in ours if not more else ours.keys() & recorded.keys():
            yield from beyond(ours[name], recorded.get(name), more, f"{at}.{name}")
    elif isinstance(ours, list) and isinstance(recorded, list) and bool(ours) is bool(recorded):
        for number, (left, right) in enumerate(zip(ours, recorded[: len(ours)], strict=True)):
            yield from beyond(left, right, more, f"{at}[{number}]")
    elif ours != recorded:
        yield f"{at}: {ours!r} is sent, {recorded!r} was recorded"


@dataclass(frozen=True)
class Recordings:
    """The real backend, as far as it was recorded."""

    cases: Mapping[str, Case]
    of: Callable[[str], str] = same

    def outcome(self, name: str) -> Any:
        """What comes of a case. The request must be the recorded one, for the same organization."""
        recording, case = BY_NAME[name], self.cases[name]
        refused = recording["status"] >= 300  # whatever else we said, it would have been

        def answer(request: httpx.Request) -> httpx.Response:
            organization = recording["request_headers"].get("X-Organization-ID")
            free = any(endpoint.route in request.url.path for endpoint in (HEALTH, EMISSION))
            assert free or request.headers.get("X-Organization-ID") == organization
            ours, recorded = json.loads(request.content or "{}"), recording["request_json"] or {}
            assert list(beyond(bare(ours), bare(recorded), case.more or refused)) == []
            headers = {"content-type": recording["content_type"]}
            return httpx.Response(recording["status"], headers=headers, content=body_of(recording))

        path, query = urlsplit(recording["path"])[2:4]
        wanted = {"method": recording["method"], "path": path, "params": dict(parse_qsl(query))}
        with respx.mock() as router:
            router.route(**wanted).side_effect = answer
            return case.outcome(NOWHERE, recording)


@dataclass
class Reference(Replay):
    """The reference backend, on its way through the recordings."""

    cases: Mapping[str, Case] = field(default_factory=dict)
    outcomes: dict[str, Any] = field(default_factory=dict)

    def outcome(self, name: str) -> Any:
        """What came of a case at its place among the recordings; goes there first."""
        while len(self.answers) <= INDEX[name]:
            self.answers.append(self._play(RECORDINGS[len(self.answers)]))
        return self.outcomes[name]

    def of(self, recorded: str) -> str:
        """The id that stands for a recorded one."""
        return self._ours(recorded)

    def _play(self, recording: dict[str, Any]) -> httpx.Response | None:
        name = recording["name"]
        if name not in self.cases:
            return super()._play(recording)
        if name == "logs.process_history.two":
            self._log_two()
        said = self.outcomes[name] = self.cases[name].outcome(
            str(self.http.base_url.join("/internal")), recording, self._ours
        )
        if isinstance(said, BaseModel):
            self._learn(recording["response_json"], said.model_dump())
        return None
