"""What no line of a log may show: secrets, credentials in what others say, and the content of documents.

A line is looked at for words first, since nearly none has one, and a pattern takes as long as the rest of a line.
What is found too often costs a word of a line, what is not found a password.
"""

import json
import re
from collections.abc import Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

from shared.variables import Secret

_HIDDEN = "***"
_NOTHING = (None, "", str(Secret("")))
_CONTENT = frozenset(
    {"text", "result", "results", "content", "body", "payload", "data", "args", "kwargs", "message", "messages"}
)
_NAMES = (
    "authorization",
    "bearer",
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "api[-_]?key",
    "access[-_]?key",
    "private[-_]?key",
    "secret[-_]?key",
    "signing[-_]?key",
    "encryption[-_]?key",
    "passphrase",
    "credentials?",
)
# One of these is in each line in which a name above, or the user of an address, may be.
_MARKS = ("authorization", "bearer", "passw", "pwd", "secret", "token", "key", "passphrase", "credential", "://")
_NAMED = re.compile(f"(?:{'|'.join(_NAMES)})$", re.IGNORECASE)
# Between a name and its value, in JSON within JSON too. A scheme of HTTP is no value; nor is what is hidden already.
_QUOTE = r"""(?:b(?=\\*["']))?\\*["']"""  # of text, or of bytes as Python shows them
_SCHEME = r"(?:(?:bearer|basic|digest|token|apikey)\s+)?(?!\*\*\*)"
_MEANS = rf"""(?:\\*["']?\s*[:=]\s*(?:{_QUOTE})?|\\*["']\s*,\s*{_QUOTE}|(?<=[rR])\s+){_SCHEME}"""
_VALUE = r"""[^\s"'\\,;&<>(){}\[\]]"""
_USER = r"""[^\s/"'<>\\]"""


class Redaction:
    """Hides the given secrets, whatever looks like one, and content.

    Args:
        secrets: values that are shown nowhere, in none of the forms that `Secret.forms` knows.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        plain = {form for secret in secrets for form in secret.forms()}
        written = plain | {json.dumps(form)[1:-1] for form in plain}
        self._written = sorted(written, key=len, reverse=True)
        known = "|".join(map(re.escape, self._written)) or "(?!)"
        values = f"(?:{known}|{_VALUE})+"
        self._each = re.compile(
            rf"(?P<kept>(?:{'|'.join(_NAMES)}){_MEANS}){values}|(?P<scheme>://){_USER}+@|{known}",
            re.IGNORECASE,
        )

    def text(self, line: str) -> str:
        """A line without what it may not show."""
        return self._each.sub(_replaced, line) if self._may_show(line) else line

    def json(self, line: str) -> str:
        """A line that is a JSON object, likewise; it stays one, whatever the secrets are."""
        if not self._may_show(line):
            return line
        shown = {name: self._inner(value) for name, value in json.loads(line).items()}
        return json.dumps(shown)

    def _may_show(self, line: str) -> bool:
        return any(map(line.lower().__contains__, _MARKS)) or any(map(line.__contains__, self._written))

    def _inner(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._each.sub(_replaced, value)
        if isinstance(value, dict):
            return {
                self._inner(name): _HIDDEN if value and _NAMED.search(name) else self._inner(value)
                for name, value in value.items()
            }
        if isinstance(value, list):
            return [self._inner(one) for one in value]
        text = str(value)
        hidden = self._each.sub(_replaced, text)
        return value if hidden == text else hidden


def _replaced(found: "re.Match[str]") -> str:
    if found["scheme"]:
        return f"://{_HIDDEN}@"
    return (found["kept"] or "") + _HIDDEN


def without_content(_logger: Any, _level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: fields that hold content are shown as type and size, those that hold a secret not."""
    hidden = {name: show(event[name]) for name in event if (show := shown_as(name))}
    return {**event, **hidden} if hidden else event


@lru_cache(maxsize=1_024)
def shown_as(name: str) -> Callable[[Any], Any] | None:
    """How the value of a field is shown, by the field's name; None if as it is."""
    if name in _CONTENT:
        return _outline
    return _masked if _NAMED.search(name) else None


def _outline(value: Any) -> Any:
    if value is None:
        return None
    size = f", {len(value)}" if isinstance(value, str | bytes | list | tuple | dict | set) else ""
    return f"<{type(value).__name__}{size}>"


def _masked(value: Any) -> Any:
    return value if value in _NOTHING else _HIDDEN
