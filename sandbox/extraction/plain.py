"""Reads plain text and logs."""

from sandbox.extraction.decoding import decode
from sandbox.extraction.document import Reading


def read(data: bytes) -> Reading:
    """Return the text as it stands. Pages are parted by form feeds; almost every file is one page.

    Metadata: `encoding` (str), `lines` (int), `replaced_characters` (int) if some bytes could not be decoded.
    """
    decoded = decode(data)
    lines = len(decoded.text.splitlines())
    return Reading(decoded.text, 1 + decoded.text.rstrip("\f\n").count("\f"), decoded.facts() | {"lines": lines})
