"""Rows as the JSON the internal API shows (the recordings are the source of every key)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sandbox.backend.models import (
    ApiDeployment,
    Endpoint,
    Execution,
    FileExecution,
    FileHistory,
    Notification,
    Pipeline,
    Workflow,
)

MAX_EXECUTION_COUNT = 3
# The real backend's numeric user; nothing in the sandbox has users.
CREATED_BY = 13


def zulu(moment: datetime | None) -> str | None:
    """As DRF's serializers write times; other views use `isoformat`, and the recordings tell which."""
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def text(value: Any) -> str | None:
    """An id as a string, null as null."""
    return None if value is None else str(value)


def execution_row(row: Execution, pipeline_id: Any, tags: list[Any]) -> dict[str, Any]:
    """One execution; what its tenant may not see (pipeline, tags) is given by the caller."""
    return {
        "id": str(row.id),
        "workflow_id": str(row.workflow_id),
        "workflow_name": row.workflow.name,
        "pipeline_id": text(pipeline_id),
        "task_id": text(row.task_id),
        "execution_mode": row.execution_mode,
        "execution_method": row.execution_method,
        "execution_type": row.execution_type,
        "execution_log_id": row.execution_log_id,
        "status": row.status,
        "result_acknowledged": row.result_acknowledged,
        "total_files": row.total_files,
        "error_message": row.error_message,
        "attempts": row.attempts,
        "execution_time": row.execution_time,
        "created_at": zulu(row.created_at),
        "modified_at": zulu(row.modified_at),
        "tags": tags,
    }


def file_row(row: FileExecution) -> dict[str, Any]:
    """One file execution, as `v1/file-execution/` shows it: without its execution time."""
    return {
        "id": str(row.id),
        "workflow_execution_id": str(row.execution_id),
        "file_name": row.file_name,
        "file_path": row.file_path,
        "file_size": row.file_size,
        "file_hash": row.file_hash,
        "provider_file_uuid": row.provider_file_uuid,
        "mime_type": row.mime_type,
        "fs_metadata": row.fs_metadata,
        "status": row.status,
        "execution_error": row.execution_error,
        "created_at": zulu(row.created_at),
        "modified_at": zulu(row.modified_at),
    }


def file_row_of_execution(row: FileExecution) -> dict[str, Any]:
    """The same inside an execution's answer: with it."""
    return {**file_row(row), "execution_time": row.execution_time}


def endpoint(row: Endpoint, *, merged: bool = False) -> dict[str, Any]:
    """A workflow's end. `merged` is the workflow definition's view, where the connector's settings, secrets included,
    are repeated in the configuration."""
    answer: dict[str, Any] = {
        "endpoint_id": str(row.id),
        "endpoint_type": row.endpoint_type,
        "connection_type": row.connection_type,
        "configuration": row.configuration,
    }
    if row.connector is not None:
        answer["connector_instance"] = row.connector
        if merged:
            answer["configuration"] = {**row.connector["connector_metadata"], **row.configuration}
    return answer


def workflow_definition(row: Workflow) -> dict[str, Any]:
    """The workflow as an execution's answer holds it."""
    return {
        "workflow_id": str(row.id),
        "workflow_name": row.name,
        "workflow_type": row.workflow_type,
        "description": row.description,
        "source_settings": {},
        "destination_settings": {},
        "is_active": True,
        "status": "",
    }


def pipeline(row: Pipeline) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "is_api": False,
        "resolved_pipeline_type": row.pipeline_type,
        "resolved_pipeline_name": row.name,
        "pipeline_name": row.name,
        "created_at": zulu(row.created_at),
        "modified_at": zulu(row.modified_at),
        "app_id": None,
        "active": row.active,
        "scheduled": row.scheduled,
        "cron_string": row.cron_string,
        "pipeline_type": row.pipeline_type,
        "run_count": 0,
        "last_run_time": zulu(row.last_run_time),
        "last_run_status": row.last_run_status,
        "app_icon": None,
        "app_url": None,
        "access_control_bundle_id": None,
        "shared_to_org": False,
        "organization": row.organization_id,
        "workflow": str(row.workflow_id),
        "created_by": CREATED_BY,
        "modified_by": None,
    }


def deployment(row: ApiDeployment) -> dict[str, Any]:
    """What both views of an API deployment share."""
    return {
        "id": str(row.id),
        "created_at": zulu(row.created_at),
        "modified_at": zulu(row.modified_at),
        "display_name": row.display_name,
        "description": row.description,
        "is_active": row.is_active,
        "api_endpoint": f"deployment/api/{row.organization.organization_id}/{row.api_name}/",
        "api_name": row.api_name,
        "shared_to_org": False,
        "organization": row.organization_id,
        "workflow": str(row.workflow_id),
        "created_by": CREATED_BY,
        "modified_by": None,
    }


def deployment_as_pipeline(row: ApiDeployment) -> dict[str, Any]:
    return {
        **deployment(row),
        "is_api": True,
        "resolved_pipeline_type": "API",
        "resolved_pipeline_name": row.api_name,
        "pipeline_name": row.api_name,
    }


def history_written(row: FileHistory, execution_count: int) -> dict[str, Any]:
    """A history row as creation and reservation answer it: no provider id where there is none."""
    answer: dict[str, Any] = {
        "id": str(row.id),
        "workflow_id": str(row.workflow_id),
        "cache_key": row.cache_key,
        "status": row.status,
        "execution_count": execution_count,
        "result": row.result,
        "metadata": row.metadata,
        "error": row.error,
        "file_path": row.file_path,
        "created_at": row.created_at.isoformat(),
        "modified_at": row.modified_at.isoformat(),
    }
    if row.provider_file_uuid is not None:
        answer["provider_file_uuid"] = row.provider_file_uuid
    return answer


def history(row: FileHistory) -> dict[str, Any]:
    """A history row as the look-ups answer it."""
    return {
        "id": str(row.id),
        "max_execution_count": MAX_EXECUTION_COUNT,
        "has_exceeded_limit": row.execution_count >= MAX_EXECUTION_COUNT,
        "created_at": zulu(row.created_at),
        "modified_at": zulu(row.modified_at),
        "cache_key": row.cache_key,
        "provider_file_uuid": row.provider_file_uuid,
        "status": row.status,
        "execution_count": row.execution_count,
        "error": row.error,
        "result": row.result,
        "metadata": row.metadata,
        "file_path": row.file_path,
        "workflow": str(row.workflow_id),
    }


def notification(row: Notification) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "notification_type": row.notification_type,
        "platform": row.platform,
        "url": row.url,
        "authorization_type": row.authorization_type,
        "authorization_key": row.authorization_key,
        "authorization_header": row.authorization_header,
        "max_retries": row.max_retries,
        "is_active": row.is_active,
        "notify_on_failures": row.notify_on_failures,
    }
