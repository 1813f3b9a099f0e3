"""The parts of a webhook that are pure: headers, keys and signatures."""

import base64
import json
import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from shared.errors import PayloadError
from shared.webhook_protocol import authorized, idempotency_key, keys_of, sendable, signature, signing_key

URL = "https://hooks.invalid/path"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("kind", "key", "header", "added"),
    [
        ("NONE", "sek", "X-Auth", {}),
        ("BEARER", "sek", None, {"Authorization": "Bearer sek"}),
        ("API_KEY", "sek", "X-Auth", {"Authorization": "sek"}),
        ("CUSTOM_HEADER", "sek", "X-Auth", {"X-Auth": "sek"}),
        ("CUSTOM_HEADER", "sek", None, {}),
        ("CUSTOM_HEADER", "text/json", "content-type", {"content-type": "text/json"}),
        ("BEARER", None, None, {}),
        ("API_KEY", "", None, {}),
        ("bearer", "sek", None, {}),
    ],
)
def test_authorizations(kind: str, key: str | None, header: str | None, added: dict[str, str]) -> None:
    assert authorized(kind, key, header) == JSON | added


@pytest.mark.parametrize("value", ["s3cret\nX: y", "s3cret\r", " s3cret", "s3cret\x00", "s3crät", "s3cret" * 2_000])
def test_a_value_that_cannot_be_sent_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(PayloadError, match="X-Auth") as caught:
        authorized("CUSTOM_HEADER", value, "X-Auth")
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "X Auth", "X-Auth:", "X\nAuth", "Ü", "x" * 300])
def test_a_name_that_cannot_be_sent_is_refused(name: str) -> None:
    with pytest.raises(PayloadError, match="name"):
        sendable({name: "value"})


def test_what_belongs_to_the_connection_is_ours() -> None:
    theirs = {"HOST": "a", "Transfer-Encoding": "chunked", "Content-Length": "3", "Webhook-Signature": "v1,x"}
    assert sendable({**theirs, "X-Auth": "b"}) == JSON | {"X-Auth": "b"}


def test_one_event_has_one_key_whoever_sends_it() -> None:
    alone = {"execution_id": "e1", "status": "x"}
    clubbed = {"count": 1, "notifications": [alone]}
    key = idempotency_key(URL, alone, ["row-1"], "task-1")
    assert key == idempotency_key(URL, clubbed, [], "task-2")
    assert len(key) == 64
    assert key != idempotency_key(f"{URL}/other", alone, ["row-1"], "task-1")
    assert key != idempotency_key(URL, alone | {"status": "y"}, ["row-1"], "task-1")


def test_the_events_own_keys_go_first() -> None:
    events = [{"execution_id": "e1", "status": status, "idempotency_key": "k1"} for status in ("x", "y")]
    assert keys_of({"notifications": events}) == {"k1"}
    assert idempotency_key(URL, events[0], ["r1"], "t1") == idempotency_key(URL, events[1], ["r2"], "t2")
    assert keys_of({"notifications": [*events, {"execution_id": "e2"}]}) == set()


def test_the_order_of_events_is_nothing_to_a_key() -> None:
    club = [{"execution_id": "e2"}, {"execution_id": "e1"}, {"execution_id": "e2"}]
    turned = {"notifications": club[1::-1]}
    assert idempotency_key(URL, {"notifications": club}, [], "t") == idempotency_key(URL, turned, [], "t")


def test_without_executions_the_rows_make_the_key_and_then_the_task() -> None:
    mixed = {"notifications": [{"execution_id": "e1"}, {"text": "of no execution"}]}
    by_rows = idempotency_key(URL, mixed, ["r2", "r1"], "task-1")
    assert by_rows == idempotency_key(URL, {"text": "hi"}, ["r1", "r2"], "task-2")
    assert by_rows != idempotency_key(URL, {"execution_id": "e1"}, [], "task-1")
    assert idempotency_key(URL, mixed, [], "task-1") == "task-1"
    assert idempotency_key(URL, {"notifications": "none"}, [], "task-1") == "task-1"


@given(key=st.binary(min_size=1), said=st.text(), message_id=st.uuids())
def test_a_signature_is_the_one_of_the_standard(key: bytes, said: str, message_id: UUID) -> None:
    raw, body = f"whsec_{base64.b64encode(key).decode()}", json.dumps(said)
    headers = signature(signing_key(raw), str(message_id), int(time.time()), body.encode())
    assert Webhook(raw).verify(body, headers) == said


def test_the_standard_s_own_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks: the vector of its libraries' tests."""
    body = b'{"test": 2432232314}'
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_key_in_plain_text_is_its_bytes() -> None:
    assert signing_key("a plain key") == b"a plain key"
