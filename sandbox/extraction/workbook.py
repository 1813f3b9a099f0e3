"""Reads Excel workbooks."""

import io
import zipfile
import zlib
from collections.abc import Iterable
from datetime import date, datetime, time

from openpyxl import Workbook, load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from sandbox.extraction import archive
from sandbox.extraction.document import Metadata, Reading, parsing

_ADVICE = "Open it in a spreadsheet program and save it again."
_FAULTS = (InvalidFileException, zipfile.BadZipFile, zlib.error)


def read(data: bytes) -> Reading:
    """Return every sheet: its name as a heading, then a line per row that is not empty.

    Formulas stand with the result that was saved with them, dates in ISO 8601. Pages are sheets.
    Metadata: `title`, `author` (str), `created`, `modified` (ISO 8601), those that are set; `sheets` (list of
    str); `rows` (int, those that are not empty, over all sheets).
    """
    with parsing("the workbook is damaged", _ADVICE, *_FAULTS):
        archive.check_size(data)
        # read_only streams the rows: a sheet of 100 MB would take gigabytes as objects.
        workbook = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        try:
            return _reading(workbook)
        finally:
            workbook.close()


def _reading(workbook: Workbook) -> Reading:
    texts = []
    rows = 0
    for sheet in workbook.worksheets:
        # The declared extent is often wrong, and sometimes a million rows of padding.
        sheet.reset_dimensions()
        lines = [line for row in sheet.iter_rows(values_only=True) if (line := _line(row))]
        rows += len(lines)
        texts.append("\n".join((f"# {sheet.title}", *lines)))
    metadata = _properties(workbook) | {"sheets": workbook.sheetnames, "rows": rows}
    return Reading("\n\n".join(texts) if rows else "", len(workbook.sheetnames), metadata)


def _line(row: Iterable[object]) -> str:
    return "\t".join(_cell(value) for value in row).rstrip("\t")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"  # the precision of the program that wrote it: 0.3, not 0.30000000000000004
    if isinstance(value, datetime) and value.time() == time.min:
        return value.date().isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    return " ".join(str(value).split())


def _properties(workbook: Workbook) -> Metadata:
    found = workbook.properties
    metadata = {
        "title": found.title,
        "author": found.creator,
        "created": found.created.isoformat() if found.created else None,
        "modified": found.modified.isoformat() if found.modified else None,
    }
    return {name: value for name, value in metadata.items() if value}
