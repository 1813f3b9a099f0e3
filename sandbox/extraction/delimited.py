"""Reads tables of delimited values."""

import csv
import io
import re
from collections import Counter
from itertools import islice

from sandbox.extraction.decoding import decode
from sandbox.extraction.document import Reading, parsing

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 50
_DECLARED = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
_ADVICE = "Check that every quoted field is closed, and export the table again."


def read(data: bytes) -> Reading:
    """Return a line per row that is not empty, its cells parted by tabs.

    Metadata: `encoding`, `delimiter` (str), `rows` (int, the heading counts), `columns` (int, of the widest
    row), `heading` (list of str, the first row), `replaced_characters` (int) if bytes could not be decoded.
    """
    decoded = decode(data)
    text = decoded.text
    declared = _DECLARED.match(text)
    if declared:  # an instruction for spreadsheet programs, not a row
        text = text[declared.end() :]
    delimiter = declared[1] if declared else _delimiter(text)
    with parsing("the table cannot be read", _ADVICE, csv.Error):
        found = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [cells for row in found if any(cells := [" ".join(cell.split()) for cell in row])]
    facts = {
        "delimiter": delimiter,
        "rows": len(rows),
        "columns": max(map(len, rows), default=0),
        "heading": rows[0] if rows else [],
    }
    return Reading("\n".join("\t".join(row) for row in rows), 1, decoded.facts() | facts)


def _delimiter(text: str) -> str:
    """The one that cuts most rows into the same number of columns, and into more than one.

    csv.Sniffer answers with a letter, or an error, for many tables that have an ordinary delimiter.
    """
    return max(_DELIMITERS, key=lambda delimiter: _fit(text, delimiter))


def _fit(text: str, delimiter: str) -> tuple[int, int]:
    try:
        rows = list(islice(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), _SAMPLE_ROWS))
    except csv.Error:
        return 0, 0
    widths = Counter(len(row) for row in rows if len(row) > 1)
    columns, agreeing = widths.most_common(1)[0] if widths else (0, 0)
    return agreeing, columns
