"""What a webhook says: the payload as it is, or in the words of the platform it goes to. Pure functions."""

import json
import re
from collections.abc import Mapping
from typing import Any

from shared.webhook_protocol import events_of

# https://docs.slack.dev/reference/block-kit/blocks and https://docs.slack.dev/changelog/2018-truncating-really-long-messages
_BLOCKS = 50
_HEADER = 150
_SECTION = 3_000
_TEXT = 4_000
# First of all what people look for; whatever else an event has follows in its own order.
_FIRST = ("pipeline_name", "status", "execution_id", "error_message", "timestamp")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def message_for(platform: str | None, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a webhook: the payload as it is, but for SLACK, unless it is in Slack's own words already."""
    if (platform or "").upper() != "SLACK" or "text" in payload or "blocks" in payload:
        return dict(payload)
    return slack(payload)


def slack(payload: Mapping[str, Any]) -> dict[str, Any]:
    """`{text, blocks}`: a header, then a section for each event; what is beyond Slack's limits is cut, and said so."""
    events = events_of(payload)
    titles = [_title(event) for event in events]
    title = titles[0] if len(events) == 1 else f"{len(events)} notifications"
    text = title if len(events) == 1 else f"{title}: {'; '.join(titles)}"
    # With a block for the header, and one that says how many are not shown.
    room = _BLOCKS - 1 if len(events) < _BLOCKS else _BLOCKS - 2
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": cut(title, _HEADER)}},
        *(_section(_lines(event)) for event in events[:room]),
    ]
    if len(events) > room:
        blocks.append(_section(f"… and {len(events) - room} more"))
    return {"text": escaped(text, _TEXT), "blocks": blocks}


def _title(event: Mapping[str, Any]) -> str:
    words = (str(event[name]) for name in ("pipeline_name", "status") if event.get(name))
    return " ".join(": ".join(words).split()) or "Notification"


def _lines(event: Mapping[str, Any]) -> str:
    names = [*(name for name in _FIRST if name in event), *(name for name in event if name not in _FIRST)]
    said = ((name, event[name]) for name in names if event[name] not in (None, ""))
    lines = (f"*{escaped(_label(name), _HEADER)}:* {escaped(_shown(value), _SECTION)}" for name, value in said)
    return _whole("\n".join(lines) or "(nothing was said)", _SECTION)


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def escaped(text: str, most: int) -> str:
    """Text in which Slack sees no mention, link or channel call, of at most that many characters.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    return _whole(re.sub("[&<>]", lambda found: _ESCAPES[found.group()], text), most)


def _whole(text: str, most: int) -> str:
    """Escaped text, cut without an escape that lost its end."""
    short = cut(text, most)
    return text if short == text else re.sub(r"&[a-z]{0,3}…$", "…", short)


def cut(text: str, most: int) -> str:
    """Text of at most that many characters; what is cut ends so that one sees it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
