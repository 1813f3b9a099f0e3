"""The Redis lists that workers fill: results of API deployments, and log records."""

from __future__ import annotations

import functools
import json
from typing import Any

import redis
from django.conf import settings

_LOGS_AT_ONCE = 10_000


class ResultsError(Exception):
    """Redis cannot be read; the text holds its address and never its password."""


@functools.cache
def _redis() -> redis.Redis:
    server = settings.SANDBOX.redis
    return redis.Redis(
        host=server.host,
        port=server.port,
        db=server.db,
        username=server.username,
        password=server.password,
        socket_connect_timeout=3,
        socket_timeout=5,
    )


def read(workflow_id: Any, execution_id: Any) -> list[dict[str, Any]]:
    """What the workers pushed for an execution, one item per file, in the order of pushing."""
    items = _ask("lrange", f"api_results:{workflow_id}:{execution_id}", 0, -1)
    return [json.loads(item) for item in items]


def take_logs() -> list[bytes]:
    """Take the waiting log records from their list."""
    return list(_ask("lpop", settings.SANDBOX.log_queue, _LOGS_AT_ONCE) or [])


def _ask(command: str, *args: Any) -> Any:
    try:
        return getattr(_redis(), command)(*args)
    except redis.RedisError as error:
        server = settings.SANDBOX.redis
        raise ResultsError(f"Redis at {server.host}:{server.port} cannot be read: {error}") from error
