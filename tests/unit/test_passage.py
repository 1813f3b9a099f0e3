"""What a message's headers say of the request that it belongs to, where its sender is not trusted."""

from typing import Any

import pytest

from shared.passage import Passage, carrying, http_headers, message_headers, passage_of, trace_id

IDS = f"{'a' * 32}-{'b' * 16}-01"


@pytest.mark.parametrize(
    ("parent", "valid"),
    [
        (f"00-{IDS}", True),
        (f"00-{'a' * 32}-{'b' * 16}-00", True),
        (f"01-{IDS}", True),
        (f"cc-{IDS}-what-comes-later", True),
        (f"00-{IDS}-more", False),
        (f"00-{IDS}-", False),
        (f"01-{IDS}more", False),
        (f"ff-{IDS}", False),
        (f"00-{IDS}".upper(), False),
        (f"00-{'0' * 32}-{'b' * 16}-01", False),
        (f"00-{'a' * 32}-{'0' * 16}-01", False),
        (f"00-{IDS}\n", False),
        (f"01-{IDS}-\r\nHost: evil", False),
        ("", False),
        (7, False),
        (None, False),
    ],
)
def test_a_traceparent_is_passed_on_if_it_is_valid(parent: Any, valid: bool) -> None:
    found = passage_of({"traceparent": parent, "tracestate": "vendor=1", "request_id": "r"})
    assert found == (Passage("r", parent, "vendor=1") if valid else Passage("r"))


@pytest.mark.parametrize("state", ["a=b\r\nHost: evil", "ü", "x" * 513, 7, ""])
def test_a_tracestate_that_no_header_can_hold_is_left_out(state: Any) -> None:
    assert passage_of({"traceparent": f"00-{IDS}", "tracestate": state}, "r") == Passage("r", f"00-{IDS}")


@pytest.mark.parametrize("odd", ["", " a", "a ", "a\nb", "ü", "x" * 129, 7, None, ["a"]])
def test_the_first_id_that_a_header_can_hold_is_taken(odd: Any) -> None:
    assert passage_of({"request_id": odd}, odd, "the-id").request_id == "the-id"
    assert len(passage_of({"request_id": odd}, odd).request_id) == 32
    assert len(passage_of(None).request_id) == 32


def test_what_is_sent_goes_on_with_it_and_afterwards_no_more() -> None:
    assert (message_headers(), http_headers(), trace_id()) == ({}, {}, None)
    with carrying(Passage("r", f"00-{IDS}")):
        assert message_headers() == {"request_id": "r", "traceparent": f"00-{IDS}"}
        assert http_headers() == {"X-Request-ID": "r", "traceparent": f"00-{IDS}"}
        assert trace_id() == "a" * 32
    assert (message_headers(), http_headers(), trace_id()) == ({}, {}, None)
