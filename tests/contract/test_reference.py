"""What was never recorded, against the reference backend alone: executing a file first of all (contract section 3),
since the route behind it was never written in the real backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import respx

from shared.api_client import InternalAPIClient, OrganizationAPI
from shared.backend_models import FileRun, StatusUpdate
from shared.errors import (
    BackendBusyError,
    BackendFailedError,
    BackendRefusedError,
    NotFoundError,
    PayloadError,
)
from shared.models import Counts, FileData, FileHash, Status
from shared.platform_models import NotificationEvent
from tests.contract.cases import GUARDED, RUN, UNKNOWN
from tests.contract.worlds import NOWHERE, ORGANIZATION, Reference, client_of
from tests.integration.sandbox.conftest import Backend, wait_for

PDF = FileHash(file_name="a.pdf", file_path="unstract/api/a.pdf", file_hash="a" * 64, source_connection_type="API")


@pytest.fixture
def tenant(backend: Backend) -> Iterator[Backend]:
    """The backend with a fresh organization, and tools that read nothing."""
    backend.control("PUT", "switches", {"reset": True, "tool": "echo"})
    backend.setup()
    yield backend
    backend.control("PUT", "switches", {"reset": True})


@pytest.fixture
def api(client: InternalAPIClient, tenant: Backend) -> OrganizationAPI:
    return client.for_organization(tenant.organization["organization_id"])


@pytest.fixture
def data(tenant: Backend) -> FileData:
    """What the files of a new execution share."""
    organization, workflow = (tenant.organization[name] for name in ("organization_id", "workflow_id"))
    return FileData(organization_id=organization, workflow_id=workflow, execution_id=tenant.execution())


@pytest.fixture
def row(api: OrganizationAPI, data: FileData) -> str:
    """The row of a file in that execution."""
    return api.file_execution(data.execution_id, data.workflow_id, PDF).id


def test_a_file_is_executed_once(api: OrganizationAPI, data: FileData, row: str) -> None:
    with pytest.raises(NotFoundError, match="was not accepted"):
        api.file_run(row)
    run = api.execute_file(row, data, PDF)
    assert (run.status, run.file_execution_id, run.succeeded, run.running) == ("COMPLETED", row, True, False)
    assert run.result["text"] == "echo of a.pdf"
    assert run.execution_time is not None
    assert api.execute_file(row, data, PDF) == api.file_run(row) == run


def test_a_slow_file_runs_until_it_ends(tenant: Backend, api: OrganizationAPI, data: FileData, row: str) -> None:
    tenant.control("PUT", "switches", {"tool_seconds": 0.6})
    run = api.execute_file(row, data, PDF)
    assert (run.status, run.running, run.poll_after, run.result) == ("EXECUTING", True, 0.5, None)
    ended: FileRun = wait_for("the tool to end", lambda: (found := api.file_run(row)).succeeded and found)
    assert ended.result["text"] == "echo of a.pdf"


def test_a_file_that_cannot_be_read_ends_in_error(
    tenant: Backend, api: OrganizationAPI, data: FileData, row: str
) -> None:
    tenant.control("PUT", "switches", {"tool": "extract"})
    api.execute_file(row, data, PDF)
    ended: FileRun = wait_for("the tool to end", lambda: not (found := api.file_run(row)).running and found)
    assert (ended.status, ended.succeeded, ended.result) == ("ERROR", False, None)
    assert ended.error


def test_an_unknown_file_and_another_execution_are_refused(api: OrganizationAPI, data: FileData, row: str) -> None:
    with pytest.raises(NotFoundError, match="not found"):
        api.execute_file(UNKNOWN, data, PDF)
    with pytest.raises(BackendRefusedError, match="execution_id is not that of file execution"):
        api.execute_file(row, data.model_copy(update={"execution_id": UNKNOWN}), PDF)


def test_no_capacity_says_when_to_come_back(tenant: Backend, api: OrganizationAPI, data: FileData, row: str) -> None:
    tenant.control("PUT", "switches", {"rate_503": 1.0})
    with pytest.raises(BackendBusyError) as caught:
        api.execute_file(row, data, PDF)
    assert (caught.value.status, caught.value.retry_after) == (503, 1.0)


def test_a_guarded_execution_stays_as_it_ended(reference: Reference, client: InternalAPIClient) -> None:
    reference.outcome("execution.pg.COMPLETED")
    api = client.for_organization(ORGANIZATION)
    assert api.end_execution(GUARDED, Status.ERROR, Counts(1, 0, 1), "late") is False
    assert api.execution(GUARDED).execution.status == "COMPLETED"


def test_tools_that_are_not_valid_are_refused_with_the_reason(tenant: Backend, client: InternalAPIClient) -> None:
    made = tenant.setup(tools_valid=False)
    api = client.for_organization(made["organization_id"])
    with pytest.raises(BackendRefusedError, match="Tool settings are not valid") as caught:
        api.validate_tools(made["workflow_id"], made["tool_instance_ids"])
    assert caught.value.status == 422


def test_a_file_in_another_execution_is_active(api: OrganizationAPI, data: FileData, tenant: Backend) -> None:
    file = FileHash(file_name="b.pdf", file_path="/in/b.pdf", provider_file_uuid="etag-b", file_hash="b" * 64)
    other = FileHash(file_name="c.pdf", file_path="/in/c.pdf", provider_file_uuid="etag-c", file_hash="c" * 64)
    created = api.file_batch(data.execution_id, [file], is_api=False).created_file_executions
    found = api.active_files(data.workflow_id, tenant.execution(), [file, other])
    assert (file in found, other in found) == (True, False)
    assert file not in api.active_files(data.workflow_id, data.execution_id, [file])
    api.file_statuses([StatusUpdate(created[0].id, Status.COMPLETED)])
    assert file not in api.active_files(data.workflow_id, tenant.execution(), [file])


def test_events_are_sent_and_marked_once(tenant: Backend, client: InternalAPIClient) -> None:
    made = tenant.setup(notifications=[{"url": "http://127.0.0.1:58999/hook"}])
    api = client.for_organization(made["organization_id"])
    (webhook,) = api.api_notifications(made["api_deployment_id"]).notifications
    event = NotificationEvent(
        notification_id=webhook.id,
        type="API",
        execution_id=tenant.execution(),
        pipeline_id=made["api_deployment_id"],
        pipeline_name="flow",
        status="COMPLETED",
        platform="API",
        timestamp=datetime.now(UTC),
    )
    place, key = api.enqueue_notification(event), api.organization().key
    assert place is not None
    assert key == made["organization"]
    assert client.dispatch_notifications().dispatched_rows >= 1
    assert [api.mark_dispatched([place], key), api.mark_dispatched([place], key), api.mark_dead([place], key)] == [
        1,
        0,
        0,
    ]


def test_an_unknown_organization_is_no_organization(client: InternalAPIClient) -> None:
    api = client.for_organization("no-such-org")
    with pytest.raises(BackendFailedError, match="No Organization matches"):
        api.organization()
    with pytest.raises(NotFoundError, match="Organization no-such-org not found"):
        api.configuration("MAX_PARALLEL_FILE_BATCHES")
    assert api.executions(UNKNOWN, list(Status)) == []


def test_a_row_of_nobody_or_of_another_is_not_found(api: OrganizationAPI, row: str, client: InternalAPIClient) -> None:
    for asker, identifier in ((api, UNKNOWN), (client.for_organization(ORGANIZATION), row)):
        with pytest.raises(NotFoundError, match="No file execution found"):
            asker.file_execution_row(identifier)


IDS = {"workflow_id": RUN, "execution_id": RUN, "organization_id": "org"}
NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("organization", "call"),
    [
        ("", lambda api: api.execution(RUN)),
        (" org", lambda api: api.execution(RUN)),
        ("org", lambda api: api.execution("..")),
        ("org", lambda api: api.executions("x" * 70_000, [])),
        ("org", lambda api: api.file_execution(RUN, RUN, FileHash(file_name="a", fs_metadata={"n": float("nan")}))),
        ("org", lambda api: api.pipeline_status(RUN, {"nested": NESTED}, is_end=True)),
        ("org", lambda api: api.execute_file("f\u00f6", FileData.model_validate(IDS), PDF)),
    ],
)
def test_what_cannot_be_said_is_not_sent(organization: str, call: Callable[[OrganizationAPI], Any]) -> None:
    with respx.mock() as router, client_of(NOWHERE) as client:
        with pytest.raises(PayloadError):
            call(client.for_organization(organization))
        assert not router.calls
