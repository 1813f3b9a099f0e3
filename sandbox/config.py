"""The backend's settings, read from the environment. Every mistake is reported at once, so that a first start is not a
guessing game.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path


class ConfigError(Exception):
    """The environment cannot be used; the text names every variable at fault."""


@dataclass(frozen=True)
class RedisServer:
    """Where the workers push results and logs (`CACHE_REDIS_*`)."""

    host: str = "127.0.0.1"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Config:
    """Everything the backend may be told from outside."""

    api_key: str = field(repr=False)
    data_dir: Path
    database_url: str = field(repr=False)
    broker_url: str | None = field(repr=False)
    redis: RedisServer
    log_queue: str
    tool_workers: int
    tool_queue: int
    tool_wait_seconds: float
    tool_limit_seconds: float
    threads: int
    log_level: str

    @classmethod
    def from_env(cls) -> Config:
        """Build the settings, or raise ConfigError."""
        return _Reader().config()


class _Reader:
    """Collects mistakes while it reads, so that they are reported together."""

    def __init__(self) -> None:
        self._mistakes: list[str] = []

    def config(self) -> Config:
        given = self._text("SANDBOX_DATA_DIR")
        data_dir = (Path(given) if given else Path(tempfile.gettempdir()) / "unstract-sandbox").absolute()
        api_key = self._text("INTERNAL_SERVICE_API_KEY")
        if api_key is None:
            # No default: a literal key in a repository ends up guarding something real.
            self._mistakes.append("INTERNAL_SERVICE_API_KEY is required: the key the workers send as Bearer")
        config = Config(
            api_key=api_key or "",
            data_dir=data_dir,
            database_url=self._text("DATABASE_URL") or f"sqlite:///{data_dir / 'backend.sqlite3'}",
            broker_url=self._text("CELERY_BROKER_URL"),
            redis=self._redis(),
            log_queue=self._text("LOG_HISTORY_QUEUE_NAME") or "log_history_queue",
            tool_workers=int(self._number("SANDBOX_TOOL_WORKERS", 2, least=1)),
            tool_queue=int(self._number("SANDBOX_TOOL_QUEUE", 32, least=0)),
            tool_wait_seconds=self._number("SANDBOX_TOOL_WAIT_SECONDS", 2.0, least=0),
            tool_limit_seconds=self._number("SANDBOX_TOOL_LIMIT_SECONDS", 300.0, least=1),
            threads=int(self._number("SANDBOX_THREADS", 16, least=2)),
            log_level=(self._text("SANDBOX_LOG_LEVEL") or "INFO").upper(),
        )
        if self._mistakes:
            raise ConfigError("; ".join(self._mistakes))
        return config

    def _redis(self) -> RedisServer:
        return RedisServer(
            host=self._text("CACHE_REDIS_HOST") or "127.0.0.1",
            port=int(self._number("CACHE_REDIS_PORT", 6379, least=1)),
            db=int(self._number("CACHE_REDIS_DB", 0, least=0)),
            username=self._text("CACHE_REDIS_USERNAME"),
            password=self._text("CACHE_REDIS_PASSWORD"),
        )

    def _text(self, name: str) -> str | None:
        """What the variable says, or the file that `NAME_FILE` names: as the workers read theirs."""
        value, path = os.environ.get(name, "").strip(), os.environ.get(f"{name}_FILE", "").strip()
        if value or not path:
            return value or None
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            self._mistakes.append(f"{name}_FILE must be the path of a readable file")
            return None

    def _number(self, name: str, default: float, least: float) -> float:
        text = self._text(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            self._mistakes.append(f"{name} must be a number, not {text!r}")
            return default
        if value < least:
            self._mistakes.append(f"{name} must be at least {least:g}")
        return value
