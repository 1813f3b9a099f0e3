"""Reads Markdown."""

import re
from itertools import pairwise

from markdown_it import MarkdownIt

from sandbox.extraction.decoding import decode
from sandbox.extraction.document import Reading, parsing
from sandbox.extraction.web import check_size, visible

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<keys>(?:[A-Za-z][\w-]*:[^\n]*\n|[ \t]+[^\n]*\n)+)---[ \t]*\n")
_MAX_HEADINGS = 200


def read(data: bytes) -> Reading:
    """Return the text as it would be seen rendered: no markers, a line per paragraph, item or row of a table.

    Metadata: `encoding` (str), `headings` (list of str, in order), `front_matter` (str) if the file begins
    with one, `title` (str, the first heading of the first level).
    """
    check_size(data)
    decoded = decode(data)
    source = decoded.text.replace("\r\n", "\n").lstrip("\ufeff")
    facts = decoded.facts()
    front = _FRONT_MATTER.match(source)
    if front:
        facts["front_matter"] = front["keys"]
        source = source[front.end() :]
    with parsing("the Markdown cannot be read", "Simplify its nesting."):
        parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        tokens = parser.parse(source)
        headings = [
            (token.tag, visible(parser.renderer.render([inline], parser.options, {}))[0])
            for token, inline in pairwise(tokens)
            if token.type == "heading_open"
        ][:_MAX_HEADINGS]
        text, _ = visible(parser.renderer.render(tokens, parser.options, {}))
    title = next(({"title": heading} for level, heading in headings if level == "h1"), {})
    return Reading(text, 1, {**facts, **title, "headings": [heading for _, heading in headings]})
