"""What is deployed, one row each, as the registry has it."""

from collections.abc import Sequence
from dataclasses import dataclass

from config.workers import BEAT_HEALTH_PORT, MONITOR_HEALTH_PORT, WORKERS, Worker

# The broker's plain and TLS ports, those of Redis and of its sentinels, and those that backends are usually at.
_STORES = (5671, 5672, 6379, 6380, 26379)
_BACKEND = (80, 443, 8000)
_MANAGEMENT = (15671, 15672)
# Keys of the secret, which are files in the containers.
_STORE_KEYS = ("celery_broker_url", "cache_redis_password")
KEYS = ("internal_service_api_key", *_STORE_KEYS)


@dataclass(frozen=True, slots=True)
class Process:
    """One Deployment.

    Attributes:
        name: as images and Kubernetes have it, with dashes.
        command: what the image's program is told.
        port: TCP port of its health server.
        reaches: TCP ports that it may connect to, wherever they are.
        keys: of the secret, without which it does not start.
        optional: a key that may be missing.
        worker: its row, if it is a worker, of which there may be many.
    """

    name: str
    command: Sequence[str]
    port: int
    reaches: Sequence[int] = _STORES
    keys: Sequence[str] = _STORE_KEYS
    optional: str | None = None
    worker: Worker | None = None


def _of(worker: Worker) -> Process:
    name, reaches = worker.name.replace("_", "-"), (*_STORES, *_BACKEND)
    return Process(name, ("run", worker.name), worker.health_port, reaches, KEYS, "webhook_signing_key", worker)


BEAT = Process("beat", ("beat",), BEAT_HEALTH_PORT)
MONITOR = Process(
    "monitor", ("monitor",), MONITOR_HEALTH_PORT, (*_STORES, *_MANAGEMENT), optional="rabbitmq_management_url"
)
PROCESSES = (*map(_of, WORKERS.values()), BEAT, MONITOR)
