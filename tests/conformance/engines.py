"""The engines, each with whatever it needs, for the same tests."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from celery.contrib.testing.worker import start_worker

from config.workers import profile_named
from shared.api_client import InternalAPIClient
from shared.celery_app import build_app
from shared.config import Settings
from shared.redis_connection import redis_client
from shared.workflows.attempts import Limits
from shared.workflows.catalogue import Catalogue
from shared.workflows.client import TaskClient
from shared.workflows.declaration import BaseWorkflow
from shared.workflows.engines.celery import CeleryEngine, FleetSettings
from shared.workflows.engines.engine import Engine
from shared.workflows.engines.local import LocalEngine
from shared.workflows.run_store import RunStore
from shared.workflows.steps import Runs
from tests.fakes import ENVIRONMENT


class Growing(Catalogue):
    """Workflows that are declared while their engine runs."""

    def add(self, owners: Iterable[type[BaseWorkflow]]) -> None:
        for owner in owners:
            self._declarations[owner.declaration.name] = owner.declaration


@dataclass
class World:
    """An engine, and the workflows that it knows."""

    engine: Engine
    workflows: Growing
    limits: Limits

    def client(self, *owners: type[BaseWorkflow]) -> TaskClient:
        """A client that knows these as well."""
        self.workflows.add(owners)
        return TaskClient(self.engine, self.workflows, self.limits)


LIMITS = Limits(output=100_000, items=50)


def _no_backend() -> InternalAPIClient:
    raise AssertionError("no step of these asks the backend")


@contextmanager
def local() -> Iterator[World]:
    """Threads of this process."""
    engine = LocalEngine(LIMITS, _no_backend)
    yield World(engine, Growing([]), LIMITS)
    engine.close()


def environment(broker: str, redis_url: str, **more: str) -> dict[str, str]:
    """Of a worker with that broker and that state store."""
    store = urlsplit(redis_url)
    return ENVIRONMENT | {
        "CELERY_BROKER_URL": broker,
        "CACHE_REDIS_HOST": store.hostname or "",
        "CACHE_REDIS_PORT": str(store.port),
        "CACHE_REDIS_DB": store.path.strip("/") or "0",
        "CACHE_REDIS_PASSWORD": store.password or "",
        "WORKFLOW_OUTPUT_MAX_BYTES": str(LIMITS.output),
        "WORKFLOW_MOST_ITEMS": str(LIMITS.items),
        **more,
    }


@contextmanager
def fleet(broker: str, redis_url: str) -> Iterator[World]:
    """A worker of this process on a real broker, with its state in a real Redis."""
    said = environment(broker, redis_url)
    settings, known = Settings.load(said), Growing([])
    app = build_app(profile_named("general"), settings)

    def runs() -> Runs:
        return Runs(RunStore(redis_client(settings), settings.stall, settings.workflow_retention), known)

    app.resources.held("workflows", runs)
    engine = CeleryEngine(FleetSettings.load(said), known, LIMITS)
    with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False, shutdown_timeout=30):
        yield World(engine, known, LIMITS)
    engine.close()
    app.resources.close()
    app.close()
