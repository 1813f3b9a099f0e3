"""Makes organizations, workflows and what belongs to them: for a demo or test (`POST /sandbox/setup/`)."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from django.db import transaction

from sandbox.backend.models import (
    ApiDeployment,
    Configuration,
    Endpoint,
    Notification,
    Organization,
    Pipeline,
    ToolInstance,
    Workflow,
)
from sandbox.backend.tools.destination import checked

TYPES = ("API", "ETL", "TASK")
_NOTIFICATION_FIELDS = (
    "platform",
    "authorization_type",
    "authorization_key",
    "authorization_header",
    "max_retries",
    "notify_on_failures",
    "is_active",
)


def setup(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make what `wanted` describes, or find it again; ValueError says what is wrong with it.

    `{organization, workflow_type, name, source_folder?, destination_table?, max_files?, max_parallel_file_batches?,
    notification_club_interval?, tools_valid?, active?, notifications?: [{url, platform?, authorization_type?, ...}]}`
    """
    kind = str(wanted.get("workflow_type", "API"))
    if kind not in TYPES:
        raise ValueError(f"workflow_type must be one of {', '.join(TYPES)}")
    names = [str(wanted.get(name) or "") for name in ("organization", "name")]
    if not all(names):
        raise ValueError("organization and name are required")
    with transaction.atomic():
        organization = _organization(names[0], wanted)
        workflow, _ = Workflow.objects.get_or_create(
            organization=organization, name=names[1], workflow_type=kind, defaults={"description": "sandbox"}
        )
        _furnish(workflow, wanted)
        _tool(workflow, bool(wanted.get("tools_valid", True)))
        owner = _owner(workflow, bool(wanted.get("active", True)))
        _notifications(owner, wanted.get("notifications"))
    return _answer(workflow, owner)


def _organization(name: str, wanted: dict[str, Any]) -> Organization:
    row: Organization
    row, _ = Organization.objects.get_or_create(organization_id=name, defaults={"display_name": name.title()})
    # Events go out at the next `buffer/process/`, unless the test is about waiting.
    values = {"NOTIFICATION_CLUB_INTERVAL": wanted.get("notification_club_interval", 0)}
    if wanted.get("max_parallel_file_batches") is not None:
        values["MAX_PARALLEL_FILE_BATCHES"] = int(wanted["max_parallel_file_batches"])
    for key, value in values.items():
        Configuration.objects.update_or_create(organization=row, key=key, defaults={"value": value})
    return row


def _furnish(workflow: Workflow, wanted: dict[str, Any]) -> None:
    """The two ends of a workflow; for one that is there already, its folder and table may change."""
    if workflow.workflow_type == "API":
        for end in ("SOURCE", "DESTINATION"):
            _end(workflow, end, {"connection_type": "API"})
        return
    folder = Path(str(wanted.get("source_folder") or ""))
    if not folder.is_absolute():
        raise ValueError("source_folder is required, and must be an absolute path")
    table = checked(str(wanted.get("destination_table") or "documents"))
    source = {
        "folders": ["/"],
        "maxFiles": int(wanted.get("max_files") or 100_000),
        "fileExtensions": [],
        "processSubDirectories": True,
    }
    destination = {
        "table": table,
        "columnMode": "Write JSON to a single column",
        "includeAgent": False,
        "singleColumnName": "data",
    }
    connector = _connector("folder", {"path": str(folder)})
    values = {"connection_type": "FILESYSTEM", "configuration": source, "connector": connector, "folder": str(folder)}
    _end(workflow, "SOURCE", values)
    connector = _connector("database", {"schema": "public"})
    values = {"connection_type": "DATABASE", "configuration": destination, "connector": connector}
    _end(workflow, "DESTINATION", values)


def _end(workflow: Workflow, kind: str, values: dict[str, Any]) -> None:
    Endpoint.objects.update_or_create(workflow=workflow, endpoint_type=kind, defaults=values)


def _tool(workflow: Workflow, valid: bool) -> None:
    adapter = str(uuid.uuid4())
    metadata = {"X2TEXT-1": adapter, "tenant_id": workflow.organization.organization_id, "extractorId": adapter}
    create = {"tool_id": "text_extractor", "version": "0.0.76", "metadata": metadata, "valid": valid}
    ToolInstance.objects.update_or_create(workflow=workflow, defaults={"valid": valid}, create_defaults=create)


def _connector(kind: str, metadata: dict[str, Any]) -> dict[str, Any]:
    identifier = f"{kind}|{uuid.uuid4()}"
    return {"connector_id": identifier, "connector_name": kind, "connector_metadata": metadata}


def _owner(workflow: Workflow, active: bool) -> ApiDeployment | Pipeline:
    """The deployment or pipeline in front of a workflow."""
    row: ApiDeployment | Pipeline
    if workflow.workflow_type == "API":
        defaults = {"api_name": api_name(workflow.name), "display_name": workflow.name, "description": "sandbox"}
        row, _ = ApiDeployment.objects.update_or_create(
            organization=workflow.organization,
            workflow=workflow,
            defaults={"is_active": active},
            create_defaults={**defaults, "is_active": active},
        )
        return row
    defaults = {"name": workflow.name, "pipeline_type": workflow.workflow_type, "cron_string": "0 */2 * * *"}
    row, _ = Pipeline.objects.update_or_create(
        organization=workflow.organization,
        workflow=workflow,
        defaults={"active": active},
        create_defaults={**defaults, "active": active},
    )
    return row


def api_name(name: str) -> str:
    """A name as a part of a URL."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def _notifications(owner: ApiDeployment | Pipeline, wanted: list[dict[str, Any]] | None) -> None:
    """Replace the webhooks, if any are named."""
    if wanted is None:
        return
    target = {"api": owner} if isinstance(owner, ApiDeployment) else {"pipeline": owner}
    Notification.objects.filter(**target).delete()
    for item in wanted:
        unknown = set(item) - {"url", *_NOTIFICATION_FIELDS}
        if unknown or not item.get("url"):
            raise ValueError(f"a notification needs url and may have {', '.join(_NOTIFICATION_FIELDS)}")
        Notification.objects.create(**target, **item)


def _answer(workflow: Workflow, owner: ApiDeployment | Pipeline) -> dict[str, Any]:
    organization = workflow.organization
    api = isinstance(owner, ApiDeployment)
    target = {"api": owner} if api else {"pipeline": owner}
    notifications = Notification.objects.filter(**target).order_by("created_at")
    return {
        "organization_id": organization.organization_id,
        "organization": organization.pk,
        "workflow_id": str(workflow.id),
        "workflow_type": workflow.workflow_type,
        "api_deployment_id": str(owner.id) if api else None,
        "pipeline_id": None if api else str(owner.id),
        "api_name": owner.api_name if api else None,
        "api_key": str(owner.api_key),
        "tool_instance_ids": [str(row.id) for row in ToolInstance.objects.filter(workflow=workflow)],
        "notification_ids": [str(row.id) for row in notifications],
    }
