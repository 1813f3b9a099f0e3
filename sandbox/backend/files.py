"""File executions: the keys by which they are found again, and the limits SQLite does not enforce."""

from __future__ import annotations

from typing import Any, cast

from django.db import DataError, IntegrityError, transaction

from sandbox.backend.models import Execution, FileExecution

NAME_LIMIT = 255


def check_lengths(name: str) -> None:
    """PostgreSQL refuses a name that is too long, SQLite stores it: the same error for both, with the same effect on
    the transaction it happens in."""
    if len(name) > NAME_LIMIT:
        with transaction.atomic(savepoint=False):
            raise DataError("value too long for type character varying(255)\n")


def columns(file: dict[str, Any]) -> dict[str, Any]:
    """A FileHashData as columns; the empty hash is none."""
    return {
        "file_name": file.get("file_name") or "",
        "file_path": file.get("file_path"),
        "file_size": file.get("file_size"),
        "file_hash": file.get("file_hash") or None,
        "provider_file_uuid": file.get("provider_file_uuid"),
        "mime_type": file.get("mime_type"),
        "fs_metadata": file.get("fs_metadata"),
    }


def get_or_create(execution: Execution, file: dict[str, Any]) -> FileExecution:
    """The row of this file in this execution, made if it is missing; safe against a second caller.

    Files of API deployments are stored without a path (their staged path says nothing about the file), and found by
    hash and name; others by provider id, or hash, and path.
    """
    values = columns(file)
    if file.get("source_connection_type") == "API":
        values["file_path"] = None
    key = _key(values)
    row: FileExecution | None = FileExecution.objects.filter(execution=execution, **key).first()
    if row is not None:
        return row
    if len(values["file_name"]) > NAME_LIMIT:
        # The real backend makes the row with its key alone and fails on filling it in: an empty row stays behind.
        FileExecution.objects.create(execution=execution, file_hash=values["file_hash"], file_path=values["file_path"])
        check_lengths(values["file_name"])
    try:
        with transaction.atomic():
            row = FileExecution.objects.create(execution=execution, **values)
    except IntegrityError:
        row = FileExecution.objects.get(execution=execution, **key)
    return cast("FileExecution", row)


def _key(values: dict[str, Any]) -> dict[str, Any]:
    if values["file_path"] is None:
        return {"file_path__isnull": True, "file_hash": values["file_hash"], "file_name": values["file_name"]}
    if values["provider_file_uuid"]:
        return {"file_path": values["file_path"], "provider_file_uuid": values["provider_file_uuid"]}
    return {"file_path": values["file_path"], "file_hash": values["file_hash"]}
