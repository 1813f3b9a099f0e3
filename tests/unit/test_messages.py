"""What a webhook says on each platform, and Slack's limits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from general.messages import cut, escaped, message_for

EVENT = {
    "type": "ETL",
    "pipeline_id": "p1",
    "pipeline_name": "invoices",
    "status": "COMPLETED",
    "execution_id": "e1",
    "error_message": None,
    "total_files": 2,
}
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
EVENTS = st.dictionaries(st.sampled_from([*EVENT, "a", "b"]), VALUES)


@pytest.mark.parametrize("platform", ["API", None, "", "TEAMS"])
def test_other_platforms_get_the_payload_as_it_is(platform: str | None) -> None:
    assert message_for(platform, EVENT) == EVENT


@pytest.mark.parametrize("own", [{"text": "hi"}, {"blocks": []}])
def test_what_is_slack_s_already_goes_as_it_is(own: dict[str, Any]) -> None:
    assert message_for("SLACK", own) == own


def test_one_event_on_slack() -> None:
    assert message_for("SLACK", EVENT) == {
        "text": "invoices: COMPLETED",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": "invoices: COMPLETED"}},
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": "*Pipeline name:* invoices\n*Status:* COMPLETED\n*Execution id:* e1\n*Type:* ETL\n"
                    "*Pipeline id:* p1\n*Total files:* 2",
                },
            },
        ],
    }


def test_a_club_on_slack() -> None:
    said = message_for("SLACK", {"count": 2, "notifications": [EVENT, EVENT | {"status": "ERROR"}]})
    assert said["text"] == "2 notifications: invoices: COMPLETED; invoices: ERROR"
    assert [block["type"] for block in said["blocks"]] == ["header", "section", "section"]


@pytest.mark.parametrize(("events", "blocks", "rest"), [(49, 50, None), (50, 50, "2 more"), (1_000, 50, "952 more")])
def test_more_events_than_slack_has_room_for(events: int, blocks: int, rest: str | None) -> None:
    said = message_for("SLACK", {"notifications": [EVENT] * events})
    assert len(said["blocks"]) == blocks
    assert (rest or "Status") in said["blocks"][-1]["text"]["text"]


def test_nobody_is_called_by_a_file_name() -> None:
    """Of a header only the plain text is shown; elsewhere Slack would understand it."""
    said = message_for("SLACK", {"pipeline_name": "<!channel> & <https://evil.invalid|x>", "<b>": "</b>"})
    for text in (said["text"], said["blocks"][1]["text"]["text"]):
        assert "<" not in text
        assert "&lt;!channel&gt; &amp; " in text
    assert said["blocks"][0]["text"]["type"] == "plain_text"


@given(st.lists(EVENTS, min_size=1, max_size=60), st.integers(0, 5_000))
def test_slack_s_limits_are_kept(events: list[dict[str, Any]], longer: int) -> None:
    events[0]["error_message"] = "&<>" * longer
    said = message_for("SLACK", {"notifications": events})
    assert 0 < len(said["text"]) <= 4_000
    assert len(said["blocks"]) <= 50
    assert 0 < len(said["blocks"][0]["text"]["text"]) <= 150
    assert all(0 < len(block["text"]["text"]) <= 3_000 for block in said["blocks"][1:])


@given(st.text(alphabet="a&<>"), st.integers(1, 30))
def test_no_escape_is_cut_in_two(text: str, most: int) -> None:
    found = escaped(text, most)
    assert len(found) <= most
    whole = found.removesuffix("…").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    assert text.startswith(whole)


def test_what_is_cut_says_so() -> None:
    assert [cut("abc", 3), cut("abcd", 3)] == ["abc", "ab…"]
