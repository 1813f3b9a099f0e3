"""Where the platform's own workers had a module, and where this package has the one of the same job.

The old paths are those of the folder `workers/` of https://github.com/Zipstack/unstract, over its history: flat at
first (`shared.retry_utils`), in packages later (`shared.patterns.retry.utils`). Worker folders with a `-` are written
`_`. A row is about the module: whether what is imported from it is there too, a type checker knows.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

# The whole tree went by these names where it was a package of something, and by none where its folder was on the path.
_ROOTS = ("unstract.workers", "backend.workers", "workers")
# What was in the old `shared` and is not in ours: without these, `shared.x` may as well be ours.
_OLD_SHARED = (
    "api", "api_client_facade", "cache", "clients", "constants", "core", "data", "data_models", "enums", "exceptions",
    "infrastructure", "patterns", "processing", "utils", "workflow",
)  # fmt: skip
_WORKERS = ("api_deployment", "general", "file_processing", "callback")
_SAME = (
    "config.queue_routing",
    "monitoring.prometheus_metrics",
    "shared.api_client",
    "shared.circuit_breaker",
    "shared.config",
    "shared.health",
    "shared.logging_utils",
    "shared.retry_utils",
    *(f"{worker}.{name}" for worker in _WORKERS for name in ("tasks", "worker")),
)
_MOVED = {
    "shared.InternalAPIClient": "shared.api_client.InternalAPIClient",
    "shared.api.InternalAPIClient": "shared.api_client.InternalAPIClient",
    "shared.api.facades.legacy_client": "shared.api_client",
    "shared.api.internal_client": "shared.api_client",
    "shared.api_client_facade": "shared.api_client",
    "shared.cache.redis_client": "shared.redis_connection",
    "shared.constants.api_endpoints": "shared.endpoints",
    "shared.core.exceptions.api_exceptions": "shared.errors",
    "shared.core.exceptions.base_exceptions": "shared.errors",
    "shared.core.exceptions.workflow_exceptions": "shared.errors",
    "shared.data.models": "shared.models",
    "shared.data_models": "shared.models",
    "shared.infrastructure.config.builder": "shared.celery_app",
    "shared.infrastructure.config.registry": "config.workers",
    "shared.infrastructure.config.worker_config": "shared.config",
    "shared.infrastructure.logging.logger": "shared.logging_utils",
    "shared.infrastructure.monitoring.health": "shared.health",
    "shared.patterns.retry.backoff": "shared.retry_utils",
    "shared.patterns.retry.utils": "shared.retry_utils",
    "shared.utils.redis_client": "shared.redis_connection",
    "shared.workflow.execution.orchestration_utils": "shared.orchestration",
}

OLD = (*_ROOTS, *(f"shared.{name}" for name in _OLD_SHARED))
"""A dotted name that is one of these, or beneath one, is an old path."""

RENAMES: Mapping[str, str] = MappingProxyType(
    {f"{root}.{name}": name for root in _ROOTS for name in _SAME}
    | {f"{root}.{old}": new for root in _ROOTS for old, new in _MOVED.items()}
    | {old: new for old, new in _MOVED.items() if old.startswith(tuple(name for name in OLD if name not in _ROOTS))}
)
"""Old dotted prefix to the one that replaces it."""


def is_beneath(name: str, prefix: str) -> bool:
    """Whether `name` is the dotted name `prefix`, or something in it."""
    return name == prefix or name.startswith(f"{prefix}.")


def is_old(name: str) -> bool:
    return any(is_beneath(name, prefix) for prefix in OLD)


def longest(name: str, prefixes: Iterable[str]) -> str | None:
    """The longest of `prefixes` that `name` is, or is beneath."""
    return max((prefix for prefix in prefixes if is_beneath(name, prefix)), key=len, default=None)


def renamed(name: str) -> str | None:
    """What `name` is called here, by the longest prefix of it in the table; None if the table has none."""
    prefix = longest(name, RENAMES)
    return None if prefix is None else RENAMES[prefix] + name[len(prefix) :]
