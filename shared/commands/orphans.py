"""Executions that the backend calls open and that no worker knows: the state store has lost them, or their message was
lost before a worker had it. They are handed to the reaper, which ends them by what the backend knows of their files.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from shared.api_client import InternalAPIClient, OrganizationAPI
from shared.backend_models import ExecutionRow
from shared.config import Settings
from shared.execution_state import ExecutionState, Run
from shared.models import Status
from shared.redis_connection import redis_client

_OPEN = (Status.PENDING, Status.EXECUTING)


def hand_over(settings: Settings, organization_id: str, workflow_id: str) -> Iterator[str]:
    """Hand every orphan of a workflow to the reaper. What was found, line by line.

    Only executions that are older than STALL_SECONDS: the message of a younger one may be on its way. One that is
    handed over twice ends once: the reaper knows it then.

    Raises:
        WorkerError: backend or state store cannot be asked.
    """
    with InternalAPIClient(settings, slots=1) as client, redis_client(settings) as connection:
        state = ExecutionState(connection, settings.execution_deadline, settings.stall)
        backend = client.for_organization(organization_id)
        rows = backend.executions(workflow_id, _OPEN)
        for row in rows:
            yield f"{row.id}  {row.status:10}{_hand_over(state, backend, row, organization_id)}"
        patience = f"{4 * state.stall:g} s"
        yield f"{len(rows)} open executions; the reaper ends those of which nothing is heard within {patience}"


def _hand_over(state: ExecutionState, backend: OrganizationAPI, row: ExecutionRow, organization_id: str) -> str:
    if state.run(row.id) is not None:
        return "known to the workers"
    if state.ended(row.id):
        return "has just ended"
    age = (datetime.now(UTC) - row.created_at).total_seconds() if row.created_at else state.stall
    if age < state.stall:
        return f"{age:.0f} s old: its message may be on its way"
    is_api = backend.execution(row.id).source_config.is_api
    files = row.total_files or 0
    # The reaper is patient with it: its message may still wait in a long queue, and finds it known then.
    state.register(Run(row.id, organization_id, row.workflow_id, row.pipeline_id, is_api, files=files))
    return "handed to the reaper"
