"""Checks that really do the thing, over fresh connections: the backend with the key, the broker, the state store."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import redis
from kombu.connection import Connection

from shared.api_client import InternalAPIClient
from shared.celery_settings import publishing_options
from shared.config import Settings
from shared.errors import (
    BackendFailedError,
    BackendRefusedError,
    BackendUnavailableError,
    UnauthorizedError,
    WorkerError,
)
from shared.redis_connection import broker_client, redis_client

_SEE_LOG = "see the backend's log"
_UNWRITABLE = "let its user write workers:* and api_results:*, on a primary that has memory left"
_PROBE_KEY = "workers:check"
_BACKEND_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (UnauthorizedError, "INTERNAL_SERVICE_API_KEY must be the key that the backend has"),
    (BackendRefusedError, "INTERNAL_API_BASE_URL must lead to the backend's internal API"),
    (BackendFailedError, "INTERNAL_API_BASE_URL must lead to the backend's internal API; if it does, see its log"),
    (
        BackendUnavailableError,
        "start the backend, or correct INTERNAL_API_BASE_URL; for certificates there is INTERNAL_API_CA_BUNDLE",
    ),
)
_BROKER_REMEDY = (
    "start the broker, or correct host, virtual host, user and password in CELERY_BROKER_URL; one that is out of "
    "memory or disk takes no messages either (rabbitmq-diagnostics alarms)"
)
_REDIS_REMEDY = "start Redis, or correct host, port, database, user and password in CACHE_REDIS_*"


class Verdict(StrEnum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    """Work goes on; somebody should know."""
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: as an operator calls it.
        verdict: right or wrong.
        found: what was seen, without secrets.
        remedy: what to do, where something is wrong.
    """

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def look(settings: Settings, names: Iterable[str] = ("backend", "broker", "state store")) -> Iterator[Finding]:
    """What a worker stands on, one after the other, each within seconds. What a check raises is its finding."""
    for name in names:
        try:
            yield from CHECKS[name](settings)
        except Exception as error:  # noqa: BLE001 # a check that fails in a way nobody thought of has found something
            said = str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}"
            yield Finding(name, Verdict.WRONG, said, _remedy(name, error))


def _remedy(name: str, error: Exception) -> str:
    if name == "backend":
        return next((remedy for kind, remedy in _BACKEND_REMEDIES if isinstance(error, kind)), _SEE_LOG)
    return _BROKER_REMEDY if name == "broker" else _REDIS_REMEDY


def backend(settings: Settings) -> Iterator[Finding]:
    """The backend's health, asked once, with the key."""
    begun = time.perf_counter()
    with InternalAPIClient(replace(settings, backend_attempts=1), slots=1) as client:
        health = client.health()
    said = settings.backend_key.hide(f"{health.status!r}, version {health.version!r}")
    found = f"{settings.backend_url} is {said}, {_since(begun)}"
    if health.status == "healthy" and health.authenticated:
        yield Finding("backend", Verdict.OK, found)
    else:
        yield Finding("backend", Verdict.WRONG, f"{found}, key accepted: {health.authenticated}", _SEE_LOG)


def broker(settings: Settings) -> Iterator[Finding]:
    """The broker, as a worker connects to it; where it is a Redis, whether it keeps what it is given."""
    url = settings.broker_url.reveal()
    if urlsplit(url).scheme.startswith("redis"):
        with broker_client(settings) as client:
            yield from _redis("broker", client, settings)
        return
    begun = time.perf_counter()
    options = publishing_options(settings)
    options["transport_options"] |= {"confirm_publish": True}
    with Connection(url, **options) as connection:
        connection.connect()
        server: Mapping[str, Any] = connection.connection.server_properties
        # To nobody: confirmed, and gone. One that is out of memory or disk lets everybody in, and confirms a first one.
        for _ in range(2):
            connection.Producer().publish("", routing_key=_PROBE_KEY, delivery_mode="transient", retry=False)
        found = f"{connection.as_uri()}: {server.get('product')} {server.get('version')}, {_since(begun)}"
    yield Finding("broker", Verdict.OK, found)


def state_store(settings: Settings) -> Iterator[Finding]:
    """The state store, and whether it keeps what running executions need."""
    with redis_client(settings) as client:
        try:
            client.set(_PROBE_KEY, "1", px=1_000)
        except redis.ResponseError as error:
            yield Finding("state store", Verdict.WRONG, f"it cannot be written to: {error}", _UNWRITABLE)
            return
        yield from _redis("state store", client, settings)


def _redis(what: str, client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    begun = time.perf_counter()
    client.ping()
    at = client.connection_pool.connection_kwargs
    place = f"redis://{at.get('host')}:{at.get('port')}/{at.get('db')}"
    try:
        info: Mapping[str, Any] = client.info()
    except redis.ResponseError:
        yield Finding(what, Verdict.NOTE, f"{place}: Redis, {_since(begun)}; what it keeps may not be asked (INFO)")
        return
    yield Finding(what, Verdict.OK, f"{place}: Redis {info['redis_version']}, {_since(begun)}")
    yield _eviction(f"{what}, eviction", info)
    yield _persistence(f"{what}, persistence", client, info, settings)


def _eviction(what: str, info: Mapping[str, Any]) -> Finding:
    policy, most = info.get("maxmemory_policy", "unknown"), info.get("maxmemory", 0)
    if policy == "noeviction":
        return Finding(what, Verdict.OK, "noeviction: nothing is thrown away")
    if not most:
        return Finding(what, Verdict.OK, f"{policy}, and no maxmemory at which it would begin")
    return Finding(
        what,
        Verdict.WRONG,
        f"{policy} at {most} bytes: it would throw away what executions and messages need",
        "set maxmemory-policy to noeviction",
    )


def _persistence(what: str, client: redis.Redis, info: Mapping[str, Any], settings: Settings) -> Finding:
    if {info.get("aof_last_write_status", "ok"), info.get("rdb_last_bgsave_status", "ok")} != {"ok"}:
        return Finding(what, Verdict.WRONG, "the last write to disk failed", "see the log of Redis; is its disk full?")
    if info.get("aof_enabled"):
        return Finding(what, Verdict.OK, "append-only file")
    try:
        rule = dict(client.config_get("save")).get("save", "")
    except redis.ResponseError:
        return Finding(what, Verdict.NOTE, "no append-only file; whether there are snapshots may not be asked")
    if rule:
        return Finding(
            what,
            Verdict.NOTE,
            f"snapshots ({rule}), no append-only file: a crash loses what came after the last",
            "set appendonly to yes",
        )
    lost = "nothing is kept: a restart loses every message and running execution in it"
    verdict = Verdict.NOTE if settings.environment == "development" else Verdict.WRONG
    return Finding(what, verdict, lost, "set appendonly to yes")


def _since(begun: float) -> str:
    return f"{(time.perf_counter() - begun) * 1_000:.0f} ms"


CHECKS: Mapping[str, Check] = {"backend": backend, "broker": broker, "state store": state_store}
