"""The rows the recordings start from. `legend.json` says what each id in them stands for, and this makes those rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from sandbox.backend.models import (
    ApiDeployment,
    Configuration,
    Endpoint,
    Execution,
    Notification,
    Organization,
    Pipeline,
    ToolInstance,
    Workflow,
)

_ADAPTER = "208c1b03-d5de-47de-a961-4c70a92869ac"
_STORE = {"endpoint_url": "http://127.0.0.1:59000", "key": "minio", "secret": "minio123", "path": "/"}
_SERVER = {
    "host": "127.0.0.1",
    "port": "55432",
    "database": "unstract_db",
    "user": "unstract_dev",
    "password": "unstract_pass",
    "schema": "public",
}
_HOOK = "http://127.0.0.1:58999/hook"


class _Legend:
    """Finds an id by the sentence that explains it."""

    def __init__(self, legend: dict[str, str]) -> None:
        self._ids = {meaning: identifier for identifier, meaning in legend.items()}

    def __getitem__(self, start: str) -> str:
        found = [identifier for meaning, identifier in self._ids.items() if meaning == start]
        found = found or [identifier for meaning, identifier in self._ids.items() if meaning.startswith(start)]
        if not found:
            raise ValueError(f"the legend explains no {start!r}")
        return found[0]


def seed(legend: dict[str, str]) -> dict[str, int]:
    """Make the rows; returns how many of each. ValueError if the legend lacks one."""
    ids = _Legend(legend)
    with transaction.atomic():
        organization = _organizations(ids)
        api, etl = _workflows(ids, organization)
        _owners(ids, organization, api, etl)
        _executions(ids, api, etl)
    return {"workflows": 2, "executions": Execution.objects.filter(workflow__in=[api, etl]).count()}


def _organizations(ids: _Legend) -> Organization:
    name = ids["the organization"]
    row: Organization = Organization.objects.create(
        pk=int(ids["numeric key"]), organization_id=name, display_name=name.title()
    )
    other = ids["another organization"]
    Organization.objects.create(pk=row.pk + 1, organization_id=other, display_name=other.title())
    Configuration.objects.create(organization=row, key="MAX_PARALLEL_FILE_BATCHES", value=4)
    return row


def _workflows(ids: _Legend, organization: Organization) -> tuple[Workflow, Workflow]:
    suffix = organization.organization_id.removeprefix("org-")
    made = []
    for kind in ("API", "ETL"):
        row = Workflow.objects.create(
            id=ids[f"the {kind} workflow"],
            organization=organization,
            name=f"{kind.lower()}-wf-{suffix}",
            workflow_type=kind,
            description=f"seed {kind} workflow",
        )
        metadata = {"X2TEXT-1": _ADAPTER, "tenant_id": organization.organization_id, "extractorId": _ADAPTER}
        ToolInstance.objects.create(
            id=ids[f"the tool instance of the {kind} workflow"],
            workflow=row,
            tool_id="text_extractor",
            version="0.0.76",
            metadata=metadata,
        )
        made.append(row)
    api, etl = made
    Endpoint.objects.create(workflow=api, endpoint_type="SOURCE", connection_type="API")
    Endpoint.objects.create(workflow=api, endpoint_type="DESTINATION", connection_type="API")
    _etl_ends(etl, suffix)
    return api, etl


def _etl_ends(etl: Workflow, suffix: str) -> None:
    Endpoint.objects.create(
        workflow=etl,
        endpoint_type="SOURCE",
        connection_type="FILESYSTEM",
        configuration={
            "folders": ["/inbox"],
            "maxFiles": 100,
            "fileExtensions": ["PDF documents"],
            "processSubDirectories": True,
        },
        connector=_connector("minio", f"minio-{suffix}", _STORE),
        folder=str(_inbox()),
    )
    Endpoint.objects.create(
        workflow=etl,
        endpoint_type="DESTINATION",
        connection_type="DATABASE",
        configuration={
            "table": "out",
            "columnMode": "Write JSON to a single column",
            "includeAgent": False,
            "singleColumnName": "data",
        },
        connector=_connector("postgresql", f"pg-{suffix}", _SERVER),
    )


def _connector(kind: str, name: str, metadata: dict[str, str]) -> dict[str, Any]:
    identifier = f"{kind}|c799f6e3-2b57-434e-aaac-b5daa415da19"
    return {"connector_id": identifier, "connector_name": name, "connector_metadata": metadata}


def _inbox() -> Path:
    """The two files of the recorded source, at their recorded sizes."""
    root: Path = settings.SANDBOX.data_dir / "seed"
    (root / "inbox").mkdir(parents=True, exist_ok=True)
    for name, size in (("a.pdf", 36), ("b.pdf", 35)):
        (root / "inbox" / name).write_bytes(b"%PDF-1.4 seed\n".ljust(size, b"\n"))
    return root


def _owners(ids: _Legend, organization: Organization, api: Workflow, etl: Workflow) -> None:
    suffix = organization.organization_id.removeprefix("org-")
    deployment = ApiDeployment.objects.create(
        id=ids["the API deployment"],
        organization=organization,
        workflow=api,
        display_name=f"api {suffix}",
        api_name=f"api_{suffix}",
        description="seed",
    )
    pipeline = Pipeline.objects.create(
        id=ids["the ETL pipeline"],
        organization=organization,
        workflow=etl,
        name=f"etl-{suffix}",
        pipeline_type="ETL",
        cron_string="0 */2 * * *",
    )
    bearer = {"authorization_type": "BEARER", "authorization_key": "tok-1", "max_retries": 2}
    header = {"authorization_type": "CUSTOM_HEADER", "authorization_key": "sek", "authorization_header": "X-Auth"}
    Notification.objects.create(id=ids["a notification of the ETL pipeline"], pipeline=pipeline, url=_HOOK, **bearer)
    Notification.objects.create(
        id=ids["a notification of the ETL pipeline sent on failures only"],
        pipeline=pipeline,
        platform="SLACK",
        url=f"{_HOOK}?fail=1",
        notify_on_failures=True,
    )
    Notification.objects.create(
        id=ids["a notification of the API deployment"], api=deployment, url=f"{_HOOK}?api=1", max_retries=1, **header
    )


def _executions(ids: _Legend, api: Workflow, etl: Workflow) -> None:
    deployment, pipeline = ids["the API deployment"], ids["the ETL pipeline"]
    tag = {"id": ids["a tag"], "name": api.name.replace("api-wf", "tag"), "description": "seed tag"}
    Execution.objects.create(
        id=ids["the API execution"],
        workflow=api,
        pipeline_id=deployment,
        execution_log_id=deployment,
        total_files=3,
        tags=[tag],
    )
    Execution.objects.create(
        id=ids["the ETL execution"], workflow=etl, pipeline_id=pipeline, execution_log_id=pipeline, total_files=2
    )
    Execution.objects.create(
        id=ids["the plain execution"],
        workflow=api,
        execution_log_id=ids["execution_log_id of the plain execution"],
        total_files=1,
    )
    Execution.objects.create(
        id=ids["an execution with the terminal guard"],
        workflow=api,
        pipeline_id=deployment,
        execution_log_id=deployment,
        total_files=1,
        queue_message_id=1,
    )
