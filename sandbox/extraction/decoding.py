"""Turns bytes of unknown encoding into text."""

import codecs
import re
from dataclasses import dataclass

from charset_normalizer import from_bytes

from sandbox.extraction.document import ExtractionError, unprintable_share

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What office programs and old systems write. Left to all hundred codecs a short text becomes any of them.
_CANDIDATES = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1257", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
)
_LINE_WITH_EVIDENCE = re.compile(rb"[^\n]*[\x80-\xff][^\n]*\n?")
_SAMPLE_BYTES = 16_384
_MAX_UNPRINTABLE = 0.05
_BINARY = (
    "the file is not text, although it is named or declared so: its bytes fit no character encoding. "
    "Give it the suffix of what it is, or export it again as UTF-8."
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text, the encoding it was in, and how many characters had to be replaced by U+FFFD."""

    text: str
    encoding: str
    replaced: int = 0

    def facts(self) -> dict[str, str | int]:
        """The metadata every kind of text shares."""
        facts: dict[str, str | int] = {"encoding": self.encoding}
        return facts | ({"replaced_characters": self.replaced} if self.replaced else {})


def decode(data: bytes, declared: str | None = None) -> Decoded:
    """Return the text, by its mark, as UTF-8, as declared, or by what a sample of it looks like.

    Raises ExtractionError if it is no text in any encoding.
    """
    decoded = _decode(data, declared)
    if unprintable_share(decoded.text) > _MAX_UNPRINTABLE:
        raise ExtractionError(_BINARY)
    return decoded


def _decode(data: bytes, declared: str | None) -> Decoded:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _tolerant(data, encoding)
    wide = _wide_encoding(data)
    if wide:
        return _tolerant(data, wide)
    # UTF-8 cannot be hit by accident and costs milliseconds; looking closer costs seconds per megabyte.
    exact = _strict(data, "utf-8") or (_strict(data, declared) if declared else None)
    if exact:
        return exact
    damaged = _tolerant(data, "utf-8")
    intact = sum(character > "\x7f" for character in damaged.text) - damaged.replaced
    return damaged if intact > 10 * damaged.replaced else _guess(data)


def _strict(data: bytes, encoding: str) -> Decoded | None:
    try:
        return Decoded(data.decode(encoding), encoding)
    except (UnicodeError, LookupError, ValueError):
        return None


def _tolerant(data: bytes, encoding: str) -> Decoded:
    text = data.decode(encoding, "replace")
    return Decoded(text, encoding, text.count("\ufffd"))


def _wide_encoding(data: bytes) -> str | None:
    """UTF-16 without a mark: in Western text every second byte is zero."""
    head = data[:4096]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) < len(head) * 0.2 or min(even, odd) > max(even, odd) * 0.1:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _guess(data: bytes) -> Decoded:
    sample = _evidence(data)
    matches = from_bytes(sample, cp_isolation=list(_CANDIDATES))
    best = matches.best()
    if best is None:
        raise ExtractionError(_BINARY)
    # Candidates that fit equally come in alphabetical order; of those, the most used one is the better guess.
    western = _strict(sample, "cp1252")
    if western and (western.text == str(best) or "cp1252" in {match.encoding for match in matches}):
        return _tolerant(data, "cp1252")
    return _tolerant(data, best.encoding)


def _evidence(data: bytes) -> bytes:
    """Only lines with bytes above ASCII tell encodings apart, and the first may be far down."""
    lines = []
    size = 0
    for line in _LINE_WITH_EVIDENCE.finditer(data):
        lines.append(line[0][:_SAMPLE_BYTES])
        size += len(lines[-1])
        if size >= _SAMPLE_BYTES:
            break
    return b"".join(lines)
