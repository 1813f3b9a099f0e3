"""What every reader shares: the types it knows, the error it raises, the value it returns."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
CSV = "text/csv"
HTML = "text/html"
MARKDOWN = "text/markdown"
PLAIN = "text/plain"
PNG = "image/png"
JPEG = "image/jpeg"
TIFF = "image/tiff"

SUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        ".pdf": PDF,
        ".docx": DOCX,
        ".xlsx": XLSX,
        ".csv": CSV,
        ".html": HTML,
        ".htm": HTML,
        ".md": MARKDOWN,
        ".txt": PLAIN,
        ".log": PLAIN,
        ".png": PNG,
        ".jpg": JPEG,
        ".jpeg": JPEG,
        ".tif": TIFF,
        ".tiff": TIFF,
    }
)
"""File suffix, lower case and with its dot, to the mime type it stands for."""

# Parsers of foreign formats fail on malformed input with whatever the next line of their code happens to
# raise. The list is spelled out so that a mistake of ours, a NameError or an ImportError, still shows as one.
_PARSER_FAULTS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)

_NEWLINE = re.compile("\r\n?|[\x0b\x85\u2028\u2029]")
_TERMINAL_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Tab, newline and form feed are layout; NUL breaks databases, and a lone surrogate cannot be encoded at all.
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_OBJECT = re.compile(r" ?<[^<>]* at 0x[0-9a-fA-F]+>")  # means nothing to a reader, and differs every time
_METADATA_CHARACTERS = 1_000
_REASON_CHARACTERS = 160

Metadata = dict[str, Any]


class ExtractionError(Exception):
    """The document gives no text. The message tells its owner what is wrong and what to do about it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader found: text not yet cleaned, the number of pages, and JSON-able facts."""

    text: str
    pages: int
    metadata: Metadata


@contextmanager
def parsing(problem: str, advice: str, *library_faults: type[Exception]) -> Iterator[None]:
    """Turn whatever a parser raises into an ExtractionError: "<problem>: <the parser's reason>. <advice>"."""
    try:
        yield
    except (*library_faults, *_PARSER_FAULTS) as error:
        reason = _OBJECT.sub("", clean(" ".join(str(error).split())))[:_REASON_CHARACTERS].rstrip(". ")
        raise ExtractionError(f"{problem}: {reason or type(error).__name__}. {advice}") from error


def clean(text: str) -> str:
    """Return the text with newlines as "\\n", and without control characters other than tab and form feed."""
    text = _NEWLINE.sub("\n", text)
    if "\x1b" in text:
        text = _TERMINAL_ESCAPE.sub("", text)
    return _UNPRINTABLE.sub("", text)


def clean_metadata(value: Any) -> Any:
    """Clean every string within: metadata comes from the same strangers as the text. Long ones are cut."""
    if isinstance(value, str):
        return clean(value).strip(" \n")[:_METADATA_CHARACTERS]
    if isinstance(value, Mapping):
        return {str(key): clean_metadata(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_metadata(item) for item in value]
    return value


def unprintable_share(text: str) -> float:
    """Return which part of the characters, 0 to 1, no text would contain."""
    return len(_UNPRINTABLE.findall(text)) / max(1, len(text))
