"""The document tool: takes a file and returns its text with facts about it."""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sandbox.extraction import document
from sandbox.extraction.document import ExtractionError, Reading, clean, clean_metadata
from sandbox.extraction.sniffing import detect

MAX_FILE_BYTES = 200_000_000

# Modules by name: each imports its library at the top, and only the library a document needs is ever loaded.
_READERS = {
    document.PDF: "pdf",
    document.DOCX: "word",
    document.XLSX: "workbook",
    document.CSV: "delimited",
    document.HTML: "web",
    document.MARKDOWN: "markdown",
    document.PLAIN: "plain",
    document.PNG: "image",
    document.JPEG: "image",
    document.TIFF: "image",
}


def extract(path: Path, mime_type: str | None = None) -> dict[str, Any]:
    """Return the document's text and facts about it.

    `mime_type` is what the sender declared; the content decides first, then the suffix, then this.

    Shape: `text` (str, newlines as "\\n", pages parted by "\\f", cells of a table by "\\t"), `mime_type`
    (str, what the content is), `pages` (int: PDF pages, sheets of a workbook, otherwise as well as the format
    tells), `words` and `characters` (int, of the text), `metadata` (dict of JSON values, different for each
    type; its `mismatch` says that the name promised another type).

    Raises ExtractionError if there is no text to be had: empty, damaged, encrypted, unsupported, too large,
    or nothing but pictures. One call at a time: what libraries warn of is silenced for the whole process.
    """
    data = _load(path)
    kind, promised = detect(data, path.suffix.lower(), mime_type)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = importlib.import_module(f"sandbox.extraction.{_READERS[kind]}")
        reading = cast("Callable[[bytes], Reading]", reader.read)(data)
    text = clean(reading.text)
    words = len(text.split())
    if not words:
        raise ExtractionError("the document contains no text. Check that it is the right file.")
    metadata = clean_metadata(reading.metadata)
    if promised:
        metadata["mismatch"] = f"named or declared as {promised}, but the content is {kind}"
    return {
        "text": text,
        "mime_type": kind,
        "pages": reading.pages,
        "words": words,
        "characters": len(text),
        "metadata": metadata,
    }


def _load(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ExtractionError(
                f"the file has {size:,} bytes; more than {MAX_FILE_BYTES:,} are not accepted. Split it."
            )
        data = path.read_bytes()
    except OSError as error:
        raise ExtractionError(f"the file cannot be read: {error.strerror or error}. Send it again.") from error
    if not data:
        raise ExtractionError("the file is empty (0 bytes). Send it again.")
    return data
