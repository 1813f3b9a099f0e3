"""What the tools say of one page of a document: facts, and not its text once more."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from sandbox.extraction.document import ExtractionError
from sandbox.extraction.tool import extract


def mark(page: int | None) -> str:
    """What stands behind the name and the path of a document where they name a page of it."""
    return "" if page is None else f"#page={page}"


def asked(custom_data: Any) -> int | None:
    """The page that a file's `custom_data` asks for, from 1; None for the whole document, ValueError for nonsense."""
    page = custom_data.get("page") if isinstance(custom_data, dict) else None
    if page is not None and (not isinstance(page, int) or isinstance(page, bool) or page < 1):
        raise ValueError("page in custom_data must be the number of a page, from 1")
    return page


def facts(page: int, text: str, mime_type: str | None) -> dict[str, Any]:
    """What is said of a page with that text."""
    counts = {"words": len(text.split()), "characters": len(text), "lines": len(text.splitlines())}
    return {"page": page, "mime_type": mime_type, **counts}


def analyse(path: Path, mime_type: str | None, page: int) -> dict[str, Any]:
    """`{page, mime_type, words, characters, lines}` of a page, as `extract` parts them.

    Raises ExtractionError if the document cannot be read, or has no such page.
    """
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    kind, texts = _pages(path, mime_type, changed)
    if page > len(texts):
        raise ExtractionError(f"the document has {len(texts)} pages of text, and no page {page}.")
    return facts(page, texts[page - 1], kind)


@functools.lru_cache(maxsize=1)
def _pages(path: Path, mime_type: str | None, _changed: int) -> tuple[str, list[str]]:
    """The document that was last asked about: its pages come one after the other, and no format has them apart."""
    found = extract(path, mime_type)
    return found["mime_type"], found["text"].split("\f")
