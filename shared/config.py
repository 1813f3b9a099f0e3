"""Settings: the only reader of the environment. Read once at start, frozen, secrets masked.

No pydantic here, so that a process that needs only its settings (the scheduler) stays light.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_WEAK_KEYS = frozenset({"changeme", "secret", "password", "internal", "test", "dev-internal-key-123", "internal-key"})
_SHORTEST_KEY = 16
# How long a message may be held before a Redis broker gives it to another worker.
VISIBILITY_SECONDS = 600


class SettingsError(Exception):
    """The environment does not make valid settings; the message has one line for every mistake."""


class Secret:
    """A value that never shows itself. `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "***" if self._value else "(empty)"


def _text(raw: str) -> str:
    return raw


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        value = int(raw)
        if not low <= value <= high:
            raise ValueError
        return value

    parse.__doc__ = f"a whole number from {low} to {high}"
    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        value = float(raw)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    parse.__doc__ = f"a number of seconds from {low:g} to {high:g}"
    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in choices:
            raise ValueError
        return raw

    parse.__doc__ = "one of " + ", ".join(choices)
    return parse


def _api_url(raw: str) -> str:
    """an http or https address that ends in /internal, without user or query"""
    parts = urlsplit(raw.rstrip("/"))
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.path.endswith("/internal"):
        raise ValueError
    if parts.username or parts.query or parts.fragment or parts.port == 0:
        raise ValueError
    return raw.rstrip("/")


def _broker_url(raw: str) -> Secret:
    """an address that starts with amqp://, amqps://, redis:// or rediss://"""
    parts = urlsplit(raw)
    if parts.scheme not in {"amqp", "amqps", "redis", "rediss"} or parts.port == 0:
        raise ValueError
    return Secret(raw)


def _var(
    name: str,
    parse: Callable[[str], Any],
    about: str,
    default: str | None = None,
    **options: Any,
) -> Any:
    return field(metadata={"name": name, "parse": parse, "about": about, "default": default, **options})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration. Each field names its variable, its default and what it is."""

    environment: str = _var(
        "ENVIRONMENT",
        _one_of("production", "staging", "development"),
        "what a start refuses depends on it",
        "production",
    )
    log_level: str = _var(
        "LOG_LEVEL",
        _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "the least severe lines that are logged",
        "INFO",
    )
    log_format: str = _var(
        "LOG_FORMAT", _one_of("auto", "json", "console"), "auto is console on a terminal, else json", "auto"
    )
    backend_url: str = _var("INTERNAL_API_BASE_URL", _api_url, "the backend's internal API; ends in /internal")
    backend_key: Secret = _var("INTERNAL_SERVICE_API_KEY", Secret, "the key to the internal API")
    backend_timeout: float = _var(
        "INTERNAL_API_TIMEOUT", _seconds(0.1, 300), "seconds for one request, all its attempts", "30"
    )
    backend_attempts: int = _var("INTERNAL_API_RETRY_ATTEMPTS", _integer(1, 10), "sends of one request in total", "3")
    backend_backoff: float = _var(
        "INTERNAL_API_RETRY_BACKOFF_FACTOR",
        _seconds(0, 30),
        "first wait between sends in seconds, doubled each time, full jitter",
        "1.0",
    )
    broker_url: Secret = _var("CELERY_BROKER_URL", _broker_url, "the message broker, RabbitMQ or Redis")
    redis_host: str = _var("CACHE_REDIS_HOST", _text, "the state store, which the backend reads API results from")
    redis_port: int = _var("CACHE_REDIS_PORT", _integer(1, 65535), "its port", "6379")
    redis_db: int = _var("CACHE_REDIS_DB", _integer(0, 1_000_000), "its database", "0")
    redis_username: str = _var("CACHE_REDIS_USERNAME", _text, "its user", "", empty=True)
    redis_password: Secret = _var("CACHE_REDIS_PASSWORD", Secret, "its password", "", empty=True)
    max_parallel_batches: int = _var(
        "MAX_PARALLEL_FILE_BATCHES",
        _integer(1, 100),
        "batches of files per execution, where the backend has no value for the organization",
        "1",
    )
    batch_slice: float = _var(
        "BATCH_SLICE_SECONDS",
        _seconds(1, 600),
        "seconds after which a batch goes back to the tail of its queue",
        "60",
    )
    file_deadline: float = _var("FILE_DEADLINE_SECONDS", _seconds(1, 86_400), "seconds one file may take", "3600")
    execution_deadline: float = _var(
        "EXECUTION_DEADLINE_SECONDS",
        _seconds(1, 604_800),
        "seconds an execution may take; its state is kept an hour longer",
        "14400",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Settings from the environment, or from the mapping given.

        A secret may stand in a file: `NAME_FILE` holds its path. Values are stripped; an empty one counts as unset.

        Raises:
            SettingsError: one line for every variable that is missing or wrong, with what was expected.
        """
        source = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        mistakes: list[str] = []
        for spec in fields(cls):
            try:
                values[spec.name] = _read(spec.metadata, source)
            except SettingsError as mistake:
                mistakes.append(str(mistake))
        mistakes += _contradictions(values)
        if mistakes:
            raise SettingsError("\n".join(mistakes))
        return cls(**values)

    def describe(self) -> dict[str, str]:
        """Every variable with its effective value, secrets masked."""
        return {spec.metadata["name"]: str(getattr(self, spec.name)) for spec in fields(self)}


def _read(spec: Mapping[str, Any], source: Mapping[str, str]) -> Any:
    name, parse = spec["name"], spec["parse"]
    raw = source.get(name, "").strip() or _from_file(name, source) or spec["default"]
    if raw is None or (raw == "" and not spec.get("empty")):
        raise SettingsError(f"{name} is not set: {spec['about']}")
    try:
        return parse(raw)
    except ValueError:
        shown = "its value" if parse in {Secret, _broker_url, _api_url} else repr(raw)
        raise SettingsError(f"{name} must be {parse.__doc__}; {shown} is not") from None


def _from_file(name: str, source: Mapping[str, str]) -> str:
    path = source.get(f"{name}_FILE", "").strip()
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE names {path}, which cannot be read: {error}") from error


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    key = values.get("backend_key")
    if key and values.get("environment") != "development":
        weak = key.reveal().lower() in _WEAK_KEYS or len(key.reveal()) < _SHORTEST_KEY
        if weak:
            found.append(
                f"INTERNAL_SERVICE_API_KEY is a well-known key or shorter than {_SHORTEST_KEY} characters: "
                "set a random one, the same as the backend's (ENVIRONMENT=development accepts any)"
            )
    for low, high, names in (
        ("backend_timeout", "batch_slice", "INTERNAL_API_TIMEOUT must be below BATCH_SLICE_SECONDS"),
        (
            "file_deadline",
            "execution_deadline",
            "FILE_DEADLINE_SECONDS must be below EXECUTION_DEADLINE_SECONDS",
        ),
    ):
        if low in values and high in values and values[low] >= values[high]:
            found.append(f"{names}: {values[low]:g} is not below {values[high]:g}")
    held = values.get("batch_slice", 0) + values.get("backend_timeout", 0)
    if held >= VISIBILITY_SECONDS:
        found.append(
            f"BATCH_SLICE_SECONDS and INTERNAL_API_TIMEOUT together must be below {VISIBILITY_SECONDS}, "
            f"after which a broker gives a held message to another worker: {held:g} is not"
        )
    return found
