"""Workflows on the workers: a step is a message on the queue of its class, and what is known of a run is in Redis."""

import time
from dataclasses import dataclass
from uuid import uuid4

from shared.application import Application
from shared.call import sending
from shared.celery_settings import publisher_settings, publishing_options
from shared.config import BaseSettings, WorkflowSettings
from shared.passage import REQUEST_ID, current, message_headers
from shared.redis_connection import redis_client
from shared.task import tried
from shared.task_metrics import SENT_AT
from shared.workflows.attempts import Limits
from shared.workflows.catalogue import Catalogue
from shared.workflows.declaration import Declaration
from shared.workflows.fleet import Fleet
from shared.workflows.run_store import RunStore
from shared.workflows.runs import Place, Run
from shared.workflows.shape import RunStatus
from shared.workflows.steps import STEP_TASK, limits_of, message_of, queue_of
from shared.workflows.views import Event, RunView

_STALL_SECONDS = 600.0  # until a worker has it, whose own setting counts from then on


@dataclass(frozen=True, kw_only=True)
class FleetSettings(BaseSettings, WorkflowSettings):
    """What this engine needs: the broker and the state store of the workers."""


def make(workflows: Catalogue, limits: Limits) -> "CeleryEngine":
    """The engine of this process, as its environment has it."""
    return CeleryEngine(FleetSettings.load(), workflows, limits)


class CeleryEngine:
    """Starts runs and looks at them; the workers do the rest."""

    def __init__(self, settings: FleetSettings, workflows: Catalogue, limits: Limits) -> None:
        self._app = Application("workflows", settings.broker_url.reveal(), publishing_options(settings))
        self._app.conf.update(publisher_settings(settings))
        self._store = RunStore(redis_client(settings), _STALL_SECONDS, settings.workflow_retention)
        self._fleet = Fleet(self._store, workflows, limits, self._send)

    def start(
        self, declaration: Declaration, input_text: str, *, run_key: str | None, organization_id: str | None
    ) -> str:
        """See `Engine`."""
        passage = current()
        run = Run(
            run_id=uuid4().hex,
            shape=declaration.shape,
            input_text=input_text,
            organization_id=organization_id,
            request_id=passage.request_id if passage else uuid4().hex,
            deadline=time.time() + declaration.shape.timeout,
            run_key=run_key,
        )
        before = self._store.start(run)
        if before is not None:
            return before
        _, error = tried(lambda: self._fleet.begin(run))
        if error is not None:
            # Whoever hears of the error starts another one, and this one must not go on then.
            self._store.withdraw(run)
            self._fleet.finish(run, RunStatus.CANCELLED, "it could not be sent")
            raise error
        return run.run_id

    def look(self, run_id: str) -> RunView:
        """See `Engine`."""
        return self._store.view(run_id)

    def output(self, run_id: str, step: str) -> str | None:
        """See `Engine`."""
        return self._store.output(run_id, step)

    def events(self, run_id: str, after: str | None, seconds: float) -> list[Event]:
        """See `Engine`."""
        return self._store.events(run_id, after, seconds)

    def cancel(self, run_id: str) -> bool:
        """See `Engine`."""
        run = self._store.run(run_id)
        if run is None:
            self._store.view(run_id)  # which says if there is none
            return False
        return self._fleet.finish(run, RunStatus.CANCELLED)

    def close(self) -> None:
        """See `Engine`."""
        self._app.close()
        self._store.close()

    def _send(self, run: Run, place: Place, _seconds: float) -> None:
        queue, limits = queue_of(run, place), limits_of(run, place)
        headers = {**message_headers(), REQUEST_ID: run.request_id, SENT_AT: time.time()}
        with sending(STEP_TASK, queue):
            self._app.send_task(STEP_TASK, kwargs=message_of(run, place), queue=queue, headers=headers, **limits)
