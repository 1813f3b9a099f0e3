"""The folder an ETL or TASK workflow reads: listing it, and finding one file of it again."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.backend.http import log
from sandbox.backend.models import COMPLETED, Endpoint, FileHistory, Workflow


def source_root(source: Endpoint) -> Path | None:
    """The folder of a file-system source; None for other kinds (an API workflow has none)."""
    return Path(source.folder) if source.folder else None


def list_source(workflow: Workflow, source: Endpoint, use_history: bool) -> dict[str, dict[str, Any]]:
    """Path relative to the root -> FileHashData, sorted, at most `maxFiles`.

    With `use_history` a file whose content was already processed under the same path is left out, as the real
    backend's source connector does.
    """
    root = source_root(source)
    if root is None or not root.is_dir():
        log.warning("workflow %s has no source folder to list", workflow.id)
        return {}
    done = _processed(workflow) if use_history else set()
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(entry for entry in root.rglob("*") if entry.is_file()):
        key = path.relative_to(root).as_posix()
        tag = _etag(path)
        if (tag, key) in done:
            log.info("workflow %s: %s was already processed", workflow.id, key)
            continue
        files[key] = _file(path, key, tag, len(files) + 1, source)
        if len(files) >= source.configuration.get("maxFiles", 100):
            log.warning("workflow %s: stopped listing at maxFiles=%d", workflow.id, len(files))
            break
    return files


def resolve_source(source: Endpoint, key: str) -> Path | None:
    """The file behind a listed path, or None; a path that leaves the folder is none of ours."""
    root = source_root(source)
    if root is None:
        return None
    path = (root / key.lstrip("/")).resolve()
    return path if path.is_relative_to(root.resolve()) and path.is_file() else None


def _processed(workflow: Workflow) -> set[tuple[str, str]]:
    rows = FileHistory.objects.filter(workflow=workflow, status=COMPLETED, provider_file_uuid__isnull=False)
    return set(rows.values_list("provider_file_uuid", "file_path"))


def _etag(path: Path) -> str:
    """What an object store would give as ETag: the MD5 of the content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _file(path: Path, key: str, tag: str, number: int, source: Endpoint) -> dict[str, Any]:
    state = path.stat()
    connector = source.connector or {}
    return {
        "file_path": key,
        "file_hash": None,
        "file_name": path.name,
        "source_connection_type": source.connection_type,
        "file_destination": None,
        "is_executed": False,
        "file_size": state.st_size,
        "mime_type": None,
        "provider_file_uuid": tag,
        "fs_metadata": {
            "Key": key,
            "LastModified": datetime.fromtimestamp(int(state.st_mtime), tz=UTC).isoformat(),
            "ETag": f'"{tag}"',
            "Size": state.st_size,
            "StorageClass": "STANDARD",
            "type": "file",
            "size": state.st_size,
            "name": key,
        },
        "file_number": number,
        "connector_metadata": connector.get("connector_metadata", {}),
        "connector_id": connector.get("connector_id"),
    }
