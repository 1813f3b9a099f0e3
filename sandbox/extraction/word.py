"""Reads Word documents."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from docx import Document
from docx.document import Document as WordDocument
from docx.exceptions import PythonDocxError
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn

from sandbox.extraction import archive
from sandbox.extraction.document import Metadata, Reading, parsing

_ADVICE = "Open it in a word processor and save it again."
_FAULTS = (PythonDocxError, OpcError, zipfile.BadZipFile, zlib.error)
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_PARAGRAPH, _TABLE, _ROW, _CELL = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
_WRAPPERS = {qn("w:sdt"), qn("w:sdtContent"), qn("w:customXml"), qn("w:ins"), qn("w:moveTo")}
_MARKS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_TEXT = qn("w:t")
_PAGES = re.compile(rb"<(?:\w+:)?Pages>\s*(\d{1,6})\s*<")


def read(data: bytes) -> Reading:
    """Return paragraphs and tables in the order of the document, one row of a table per line.

    Metadata: `title`, `author`, `subject` (str), `created`, `modified` (ISO 8601), those that are set;
    `header`, `footer` (str, of all sections that have one); `paragraphs`, `tables` (int); `pages_from`: a
    Word file has no pages until it is laid out, so they are what the last program noted ("application
    properties"), or 1 ("assumed").
    """
    with parsing("the Word document is damaged", _ADVICE, *_FAULTS):
        archive.check_size(data)
        document = Document(io.BytesIO(data))
        body = document.element.body
        # A text box is stored twice, once for programs that know nothing newer.
        for double in list(body.iter(_FALLBACK)):
            double.getparent().remove(double)
        text = "\n".join(_lines(body))
        pages, source = _pages(data)
        metadata = _properties(document) | {
            "paragraphs": len(document.paragraphs),
            "tables": len(document.tables),
            "pages_from": source,
        }
    return Reading(text, pages, metadata)


def _children(parent: Any, *tags: str) -> Iterator[Any]:
    """The children with these tags, also those within form fields and accepted insertions."""
    for child in parent.iterchildren():
        if child.tag in tags:
            yield child
        elif child.tag in _WRAPPERS:
            yield from _children(child, *tags)


def _lines(parent: Any) -> Iterator[str]:
    for block in _children(parent, _PARAGRAPH, _TABLE):
        if block.tag == _PARAGRAPH:
            yield _paragraph(block)
        else:
            for row in _children(block, _ROW):
                yield "\t".join(" ".join("\n".join(_lines(cell)).split()) for cell in _children(row, _CELL))


def _paragraph(paragraph: Any) -> str:
    parts = []
    for node in paragraph.iter(_TEXT, _PARAGRAPH, *_MARKS):
        if node.tag == _TEXT:
            parts.append(node.text or "")
        elif node.tag == _PARAGRAPH:
            parts.append("\n" if parts else "")
        elif node.getparent().tag == qn("w:r"):  # a tab in the properties is a tab stop, not a character
            parts.append(_MARKS[node.tag])
    return "".join(parts)


def _pages(data: bytes) -> tuple[int, str]:
    noted = _PAGES.search(archive.member(data, "docProps/app.xml"))
    if noted and int(noted[1]):
        return int(noted[1]), "application properties"
    return 1, "assumed"


def _properties(document: WordDocument) -> Metadata:
    core = document.core_properties
    header = (section.header for section in document.sections if not section.header.is_linked_to_previous)
    footer = (section.footer for section in document.sections if not section.footer.is_linked_to_previous)
    found = {
        "title": core.title,
        "author": core.author,
        "subject": core.subject,
        "created": core.created.isoformat() if core.created else None,
        "modified": core.modified.isoformat() if core.modified else None,
        "header": "\n".join(paragraph.text for part in header for paragraph in part.paragraphs),
        "footer": "\n".join(paragraph.text for part in footer for paragraph in part.paragraphs),
    }
    return {name: value for name, value in found.items() if value}
