"""File history: finding and writing the rows."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from sandbox.backend.models import COMPLETED, STATUSES, FileHistory, Workflow

RESERVED = "PENDING"


def find(rows: QuerySet[Any], key: str | None, provider_uuid: str | None, path: str | None) -> FileHistory | None:
    """The newest row by cache key or else provider id; a path, if given, must match too."""
    if path:
        rows = rows.filter(file_path=path)
    rows = rows.filter(cache_key=key) if key else rows.filter(provider_file_uuid=provider_uuid)
    row: FileHistory | None = rows.order_by("-modified_at").first()
    return row


def upsert(workflow: Workflow, body: dict[str, Any], key: str) -> tuple[FileHistory, int]:
    """Write what a file gave. Returns the row and its count *before* this write, which is what the real one answers.

    The staged path of an API file differs in every execution, so those rows are one per content.
    """
    is_api = bool(body.get("is_api"))
    metadata = body.get("metadata")
    status = body.get("status")
    values: dict[str, Any] = {
        # An unknown status becomes COMPLETED, metadata comes back as Python's repr: both as recorded.
        "status": status if status in STATUSES else COMPLETED,
        "result": body.get("result") or "",
        "metadata": "" if metadata is None else str(metadata),
        "error": body.get("error") or "",
    }
    path = body.get("file_path")
    with transaction.atomic():
        # Locks the workflow, so that two first writes of one file do not both insert.
        Workflow.objects.select_for_update().get(pk=workflow.pk)
        rows = FileHistory.objects.filter(workflow=workflow, is_api=is_api)
        row = find(rows, key, None, None if is_api else path)
        if row is None:
            provider = body.get("provider_file_uuid")
            row = FileHistory.objects.create(
                workflow=workflow, cache_key=key, provider_file_uuid=provider, file_path=path, is_api=is_api, **values
            )
            return row, 1
        before = row.execution_count
        FileHistory.objects.filter(pk=row.pk).update(
            execution_count=F("execution_count") + 1, modified_at=timezone.now(), **values
        )
        row.refresh_from_db()
        return row, before


def reserve(workflow: Workflow, key: str, provider_uuid: str | None, path: str | None) -> tuple[FileHistory, bool]:
    """The row of this file, made as a reservation if it is missing; whether it was made."""
    with transaction.atomic():
        Workflow.objects.select_for_update().get(pk=workflow.pk)
        row = find(FileHistory.objects.filter(workflow=workflow), key, provider_uuid, path)
        if row is not None:
            return row, False
        row = FileHistory.objects.create(
            workflow=workflow, cache_key=key, provider_file_uuid=provider_uuid, file_path=path, status=RESERVED
        )
        return row, True
