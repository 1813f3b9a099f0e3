"""Reads web pages."""

from collections.abc import Iterator

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString, Tag
from bs4.exceptions import ParserRejectedMarkup

from sandbox.extraction.decoding import decode
from sandbox.extraction.document import ExtractionError, Metadata, Reading, parsing

MAX_MARKUP_BYTES = 20_000_000
_INVISIBLE = ["script", "style", "noscript", "template", "svg", "title"]
_CELLS = {"td", "th"}
_BLOCKS = _CELLS | {
    *("address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt"),
    *(
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
    ),
    *("html", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tr", "ul"),
}
_NAMED_FACTS = ("description", "author", "keywords")
_ADVICE = "Save the page again."


def read(data: bytes) -> Reading:
    """Return what a reader of the page sees: no scripts, no styles, a line per paragraph or row of a table.

    Metadata: `encoding` (str); `title`, `language`, `description`, `author`, `keywords` (str), those that
    are set.
    """
    check_size(data)
    declared = EncodingDetector.find_declared_encoding(data[:4096], is_html=True)
    decoded = decode(data, declared)
    text, facts = visible(decoded.text)
    return Reading(text, 1, decoded.facts() | facts)


def check_size(data: bytes) -> None:
    """Raise ExtractionError if the markup is too long: its tree takes some fifty times the memory."""
    if len(data) > MAX_MARKUP_BYTES:
        raise ExtractionError(
            f"the document has {len(data):,} bytes of markup; {MAX_MARKUP_BYTES:,} are allowed. Split it."
        )


def visible(markup: str) -> tuple[str, Metadata]:
    """Return the visible text of HTML and what its head says."""
    with parsing("the page cannot be read", _ADVICE, ParserRejectedMarkup):
        soup = BeautifulSoup(markup, "html.parser")
        facts = _facts(soup)
        for tag in soup.find_all(_INVISIBLE):
            tag.extract()
        raw = "".join(_strings(soup))
    lines = ("\t".join(cell.rstrip(" ") for cell in line.split("\t")) for line in raw.split("\n"))
    return "\n".join(line for line in lines if line.strip()), facts


def _strings(soup: BeautifulSoup) -> Iterator[str]:
    """The strings in order, with a newline wherever the block changes and a tab between cells of a row."""
    previous: Tag | None = None
    # Kept for every tag: looking upwards from each string is quadratic where tags are nested and never closed.
    blocks: dict[int, Tag | None] = {}
    for node in soup.descendants:
        if isinstance(node, Tag):
            blocks[id(node)] = node if node.name in _BLOCKS else blocks.get(id(node.parent))
            if node.name == "br":
                yield "\n"
            continue
        if type(node) is not NavigableString:  # comments and declarations are subclasses
            continue
        block = blocks.get(id(node.parent))
        if block is not previous and node.strip():
            yield _boundary(previous, block)
        yield _inline(node, block, starts=block is not previous)
        previous = block if node.strip() else previous


def _inline(node: NavigableString, block: Tag | None, *, starts: bool) -> str:
    """The string with its white space as a browser shows it."""
    if block is not None and block.name == "pre":
        return str(node)
    text = " ".join(f".{node}.".split())[1:-1]
    return text.lstrip(" ") if starts else text


def _boundary(previous: Tag | None, block: Tag | None) -> str:
    in_row = block is not None and previous is not None and block.name in _CELLS and previous.name in _CELLS
    return "\t" if in_row and block.parent is previous.parent else "\n"  # type: ignore[union-attr]


def _facts(soup: BeautifulSoup) -> Metadata:
    found: Metadata = {}
    if soup.title and soup.title.string:
        found["title"] = " ".join(soup.title.string.split())
    if soup.html and soup.html.get("lang"):
        found["language"] = str(soup.html["lang"])
    for tag in soup.find_all("meta"):
        name = str(tag.get("name", "")).lower()
        if name in _NAMED_FACTS and tag.get("content"):
            found[name] = str(tag["content"])
    return found
