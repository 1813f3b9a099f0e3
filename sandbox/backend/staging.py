"""Uploaded documents on their way to the disk: hashed while they stream, one open file at a time.

Django's own handlers would keep every upload of a request open until its end, and a request may bring 10,000.

An execution's documents are removed once its results are fetched, or when it never started. Those of a failed one, or
of one that nobody asks for, stay as long as the data directory: it may be run again.
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import re
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler, SkipFile

from sandbox.backend.files import NAME_LIMIT
from sandbox.backend.models import Organization

FIELD = "files"
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


class Staged:
    """One document on disk. `close` is what Django calls on uploads at the end of a request."""

    def __init__(self, name: str, path: str, mime_type: str | None, size: int, sha256: str) -> None:
        self.name = name
        self.path = path
        self.mime_type = mime_type
        self.size = size
        self.sha256 = sha256

    def close(self) -> None:
        """The file is closed already."""

    def file_hash_data(self, number: int, name: str) -> dict[str, Any]:
        """FileHashData, with the fields the backend sends."""
        return {
            "file_path": self.path,
            "file_hash": self.sha256,
            "file_name": name,
            "source_connection_type": "API",
            "file_destination": None,
            "is_executed": False,
            "file_size": self.size,
            "mime_type": self.mime_type,
            "provider_file_uuid": None,
            "fs_metadata": {},
            "file_number": number,
        }


class StagingHandler(FileUploadHandler):  # type: ignore[misc]
    """Writes the files of one request into one folder. The name on disk is a number: the given one may be anything."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder
        self._count = 0
        self._path = ""
        self._stream: BinaryIO = io.BytesIO()
        self._digest = hashlib.sha256()

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self.field_name != FIELD:
            raise SkipFile
        self._count += 1
        found = _SUFFIX.fullmatch(Path(self.file_name).suffix)
        self._path = f"{self._folder}/{self._count:05d}{found.group() if found else ''}"
        target = storage() / self._path
        if self._count == 1:
            target.parent.mkdir(parents=True, exist_ok=True)
        self._stream = target.open("wb")
        self._digest = hashlib.sha256()

    def receive_data_chunk(self, raw_data: bytes, _start: int) -> None:
        self._stream.write(raw_data)
        self._digest.update(raw_data)

    def file_complete(self, file_size: int) -> Staged:
        self._stream.close()
        mime_type = self.content_type
        if mime_type in {None, "", "application/octet-stream"}:
            mime_type = mimetypes.guess_type(self.file_name)[0]
        return Staged(self.file_name, self._path, mime_type, file_size, self._digest.hexdigest())

    def upload_interrupted(self) -> None:
        self._stream.close()


def storage() -> Path:
    """The root of what API deployments were sent."""
    root: Path = settings.SANDBOX.data_dir / "storage"
    return root


def folder_of(organization: Organization, execution_id: Any) -> str:
    """Where an execution's files are, as their messages name it."""
    return f"unstract/api/{organization.organization_id}/{execution_id}"


def remove(folder: str) -> None:
    """Delete an execution's files."""
    shutil.rmtree(storage() / folder, ignore_errors=True)


def resolve_staged(organization: Organization, path: str) -> Path | None:
    """The staged file behind the path of a message; None outside the organization's folder."""
    home = (storage() / "unstract/api" / organization.organization_id).resolve()
    target = (storage() / path).resolve()
    return target if target.is_relative_to(home) and target.is_file() else None


def unique_names(files: list[Staged]) -> dict[str, Staged]:
    """Name -> file. Files are told apart by their name alone, so a name that comes again gets a number; ValueError for
    a name too long for the database, which would fail in every worker that meets it."""
    named: dict[str, Staged] = {}
    for file in files:
        name, again = file.name, 1
        while name in named:
            again += 1
            path = Path(file.name)
            name = f"{path.stem} ({again}){path.suffix}"
        if len(name) > NAME_LIMIT:
            raise ValueError(f"the file name {name[:40]}... is longer than {NAME_LIMIT} characters")
        named[name] = file
    return named
