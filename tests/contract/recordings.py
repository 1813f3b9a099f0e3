"""The recorded exchanges, and how what is answered now is held against what was answered then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Secret

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
RECORDINGS: list[dict[str, Any]] = json.loads((SAMPLES / "recordings.json").read_text())
BY_NAME = {recording["name"]: recording for recording in RECORDINGS}


def body_of(recording: dict[str, Any]) -> bytes:
    """The answer's body as it was sent; of a page that is no JSON, its head."""
    text = recording.get("response_text_head")
    return text.encode() if text is not None else json.dumps(recording["response_json"]).encode()


def same(value: str) -> str:
    return value


def differences(wanted: Any, said: Any, of: Callable[[str], str] = same, at: str = "answer") -> Iterator[str]:
    """Where what is said is not what is wanted: of a mapping or model the named fields, of a list its beginning.

    An empty list wants an empty one. `of` gives the id that stands for a recorded one.
    """
    if isinstance(said, Secret):
        said = said.get_secret_value()
    if isinstance(wanted, dict):
        for name, value in wanted.items():
            inner = said[of(name)] if isinstance(said, dict) else getattr(said, name)
            yield from differences(value, inner, of, f"{at}.{name}")
    elif isinstance(wanted, list):
        items = list(getattr(said, "root", said))
        for number, (left, right) in enumerate(zip(wanted, items[: len(wanted) or None], strict=True)):
            yield from differences(left, right, of, f"{at}[{number}]")
    else:
        expected = of(wanted) if isinstance(wanted, str) else wanted
        if said != expected or type(said) is not type(expected):
            yield f"{at} is {said!r}, and not {expected!r}"
