"""Tables for people, one line for each row."""

from collections.abc import Iterator, Sequence

_GAP = "  "


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows, with cells of one column as wide as its widest."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
