"""Looks into the ZIP container of an Office document before a library unpacks it."""

import io
import zipfile

from sandbox.extraction.document import ExtractionError

MAX_UNPACKED_BYTES = 200_000_000
_MAX_MEMBERS = 10_000


def check_size(data: bytes) -> None:
    """Raise ExtractionError if the container would unpack to more than memory should hold.

    The sizes are those the container declares; they can be relied on, since reading stops there.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > MAX_UNPACKED_BYTES or len(members) > _MAX_MEMBERS:
        raise ExtractionError(
            f"the document is too large: it unpacks to {size:,} bytes in {len(members):,} parts; "
            f"{MAX_UNPACKED_BYTES:,} bytes are allowed. Split it, or remove pictures and unused sheets."
        )


def member(data: bytes, name: str) -> bytes:
    """Return one part of the container, empty if it is not there."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name) if name in archive.namelist() else b""
