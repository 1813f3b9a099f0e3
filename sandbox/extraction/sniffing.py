"""Decides what a file is: by its first bytes where they tell, then by its name, then by what was declared."""

import io
import zipfile

from sandbox.extraction.document import DOCX, JPEG, PDF, PNG, SUPPORTED, TIFF, XLSX, ExtractionError

_IMAGES = {
    b"\x89PNG\r\n\x1a\n": PNG,
    b"\xff\xd8\xff": JPEG,
    b"II*\x00": TIFF,
    b"MM\x00*": TIFF,
}
_OFFICE_FOLDERS = {"word/": DOCX, "xl/": XLSX}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BINARY = frozenset({PDF, DOCX, XLSX, PNG, JPEG, TIFF})
_PDF_HEADER_WITHIN = 1024  # bytes; readers have always accepted some junk before the header


def detect(data: bytes, suffix: str, declared: str | None) -> tuple[str, str | None]:
    """Return the mime type, and the type the name promised if the content is something else.

    Raises ExtractionError if the type is not supported, or if a file named as a binary format is not in it.
    """
    named = SUPPORTED.get(suffix) or _supported(declared)
    found = _by_content(data, named)
    if found:
        return found, named if named not in (None, found) else None
    if named is None:
        kind = suffix or declared or "without a suffix"
        raise ExtractionError(
            f"files of this type ({kind}) are not supported. Use one of: {' '.join(sorted(SUPPORTED))}"
        )
    if named in _BINARY:
        label = suffix if suffix in SUPPORTED else named
        raise ExtractionError(
            f"the file is said to be {label}, but its content is not: it is damaged or wrongly named. "
            "Export it again, or give it the suffix of what it really is."
        )
    return named, None


def _supported(declared: str | None) -> str | None:
    """The bare type of a Content-Type header, if a reader exists for it."""
    bare = (declared or "").partition(";")[0].strip().lower()
    return bare if bare in SUPPORTED.values() else None


def _by_content(data: bytes, named: str | None) -> str | None:
    if data.startswith(_OLE):
        raise ExtractionError(
            "the file is in the old Office format or protected by a password. "
            "Save it as .docx or .xlsx without a password."
        )
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _office_type(data)
    head = data[:_PDF_HEADER_WITHIN]
    # A text may speak about "%PDF-"; only at its very start does it decide against the name.
    if head.lstrip(b"\xef\xbb\xbf\x00 \t\r\n").startswith(b"%PDF-") or (named == PDF and b"%PDF-" in head):
        return PDF
    return next((kind for magic, kind in _IMAGES.items() if data.startswith(magic)), None)


def _office_type(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        raise ExtractionError(
            "the file is damaged: its ZIP container cannot be opened, the end may be missing. "
            "Save or transfer it again."
        ) from error
    for folder, kind in _OFFICE_FOLDERS.items():
        if any(name.startswith(folder) for name in names):
            return kind
    raise ExtractionError(
        "the file is a ZIP archive, not a Word document or an Excel workbook. Unpack it and send its documents."
    )
