"""Reads the text layer of PDF documents."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from pypdf import DocumentInformation, PageObject, PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError

from sandbox.extraction.document import ExtractionError, Metadata, Reading, parsing

_ADVICE = "Export or transfer it again."
_LOCKED = "the PDF is encrypted and cannot be opened without its password. Save a copy without protection."
_MAX_NOTES = 5

_log = logging.getLogger("pypdf")
# pypdf reports what it repaired as log records; they go into the metadata instead of the process's own log.
_log.propagate = False
_log.setLevel(logging.WARNING)


def read(data: bytes) -> Reading:
    """Return one text per page, parted by form feeds, and the document information.

    Metadata: `title`, `author`, `subject`, `creator`, `producer` (str), `created`, `modified` (ISO 8601),
    those that are set; `repairs` (list of str) if the file was not quite sound.
    """
    # Without the check a file cut off in its last stream would be "repaired", and lose text without a word.
    if b"startxref" not in data and b"%%EOF" not in data:
        raise ExtractionError(f"the PDF is damaged: its end is missing, the file was cut off. {_ADVICE}")
    with _repairs() as repairs:
        with parsing("the PDF is damaged", _ADVICE, PyPdfError):
            reader = _open(data)
            pages = list(reader.pages)
            promised = reader.root_object["/Pages"].get_object()["/Count"]  # type: ignore[index]
        if not pages or len(pages) < promised:
            raise ExtractionError(f"the PDF is damaged: {len(pages)} of {promised} pages are readable. {_ADVICE}")
        texts = [_text(page, number) for number, page in enumerate(pages, 1)]
        metadata = _information(reader)
    if not any(text.strip() for text in texts):
        raise ExtractionError(
            "the PDF has no text layer; it needs OCR, which this tool does not do. "
            "Run it through text recognition and send the searchable PDF."
        )
    if repairs:
        metadata["repairs"] = repairs
    return Reading("\f".join(texts), len(pages), metadata)


def _open(data: bytes) -> PdfReader:
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        # An empty password opens documents that are only protected against printing or editing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise ExtractionError(_LOCKED)
    except (DependencyError, FileNotDecryptedError) as error:
        raise ExtractionError(_LOCKED) from error
    return reader


def _text(page: PageObject, number: int) -> str:
    with parsing(f"the PDF is damaged on page {number}", _ADVICE, PyPdfError):
        return page.extract_text().strip("\n").replace("\f", "\n")


def _information(reader: PdfReader) -> Metadata:
    with parsing("the PDF is damaged", _ADVICE, PyPdfError):
        info = reader.metadata or DocumentInformation()
        found = {
            "title": info.title,
            "author": info.author,
            "subject": info.subject,
            "creator": info.creator,
            "producer": info.producer,
            "created": _date(info, "creation_date"),
            "modified": _date(info, "modification_date"),
        }
    return {name: str(value) for name, value in found.items() if value}


def _date(info: DocumentInformation, name: str) -> str | None:
    """ISO 8601, or as it stands: a malformed date is common, and no reason to refuse a document."""
    try:
        value: datetime | None = getattr(info, name)
    except (ValueError, TypeError, OverflowError):
        value = None
    return value.isoformat() if value else getattr(info, f"{name}_raw")


@contextmanager
def _repairs() -> Iterator[list[str]]:
    """Collect what pypdf logs."""
    notes: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note = record.getMessage()
            if note not in notes and len(notes) < _MAX_NOTES:
                notes.append(note)

    collector = Collector()
    _log.addHandler(collector)
    try:
        yield notes
    finally:
        _log.removeHandler(collector)
