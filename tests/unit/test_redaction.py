"""No line shows a secret, what looks like one, or content; and a line of JSON stays one."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.redaction import Redaction, without_content
from shared.variables import Secret
from tests.fakes import settings

KNOWN = 'k3y"with&odd<characters+and/more\\ü'


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("amqp://user:pass@host:5672//", "amqp://***@host:5672//"),
        ("cannot connect to redis://:p@ss:w0rd@host/0: away", "cannot connect to redis://***@host/0: away"),
        ("https://host/path?mail=a@b", "https://host/path?mail=a@b"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "{'authorization': 'Basic ***'}"),
        ("headers were Bearer abc", "headers were Bearer ***"),
        ("headers were Bearer ***", "headers were Bearer ***"),
        ("password=hunter2 user=me", "password=*** user=me"),
        ("PASSWORD: 'hunter2', user", "PASSWORD: '***', user"),
        ("?api_key=abc&x=1", "?api_key=***&x=1"),
        ("x-api-key: abc", "x-api-key: ***"),
        ('{"auth_token": "abc", "n": 1}', '{"auth_token": "***", "n": 1}'),
        (r"{\"token\": \"abc\"}", r"{\"token\": \"***\"}"),
        ("the password is too short; 12 tokens", "the password is too short; 12 tokens"),
        ("INTERNAL_SERVICE_API_KEY is not set", "INTERNAL_SERVICE_API_KEY is not set"),
    ],
)
def test_what_looks_like_a_credential_is_hidden(said: str, shown: str) -> None:
    assert Redaction().text(said) == shown
    assert json.loads(Redaction().json(json.dumps({"event": said}))) == {"event": shown}


def test_a_known_secret_is_hidden_in_every_form() -> None:
    redaction = Redaction([Secret(KNOWN)])
    for form in Secret(KNOWN).forms():
        assert redaction.text(f"before {form} after") == "before *** after"
        line = json.dumps({"event": "said", "inner": {form: [form, 1]}})
        assert json.loads(redaction.json(line)) == {"event": "said", "inner": {"***": ["***", 1]}}


def test_a_secret_that_is_no_unicode_is_hidden_too() -> None:
    secret = Secret(b"pass\xff".decode(errors="surrogateescape"))
    assert json.loads(Redaction([secret]).json(json.dumps({"event": secret.reveal()}))) == {"event": "***"}


def test_an_address_of_secrets_alone_takes_no_longer_than_another() -> None:
    line = "http://" + KNOWN * 200
    begun = time.monotonic()
    Redaction([Secret(KNOWN)]).text(line)
    assert time.monotonic() - begun < 1


@given(st.text(min_size=1), st.text())
def test_a_line_of_json_stays_one_whatever_the_secret_is(secret: str, text: str) -> None:
    said = {"event": f"{text}{secret}{text}", "seconds": 0.123, "level": "info", "nested": [{"a": secret}, None]}
    found = json.loads(Redaction([Secret(secret)]).json(json.dumps(said)))
    assert found.keys() == said.keys()
    assert secret not in found["event"].replace("***", "")


@pytest.mark.parametrize("value", ["123", 123, 1.23, None, "", True])
def test_a_number_that_is_a_secret_breaks_no_line(value: object) -> None:
    line = json.dumps({"event": "e", "password": value, "n": 123})
    found = json.loads(Redaction([Secret("123")]).json(line))
    assert found["n"] == "***"


def test_fields_of_content_are_shown_as_type_and_size() -> None:
    event = {
        "event": "e",
        "text": "somebody's document",
        "result": {"text": "it", "n": 1},
        "args": ["a"],
        "data": None,
        "body": 5,
        "api_key": "abc",
        "password": "",
        "reason": "away",
    }
    assert without_content(None, "info", event) == {
        "event": "e",
        "text": "<str, 19>",
        "result": "<dict, 2>",
        "args": "<list, 1>",
        "data": None,
        "body": "<int>",
        "api_key": "***",
        "password": "",
        "reason": "away",
    }


def test_the_secrets_of_the_settings_are_known_with_the_brokers_password() -> None:
    found = settings(
        INTERNAL_SERVICE_API_KEY="unit-test-key",
        CELERY_BROKER_URL="amqp://user:p%40ss-of-broker@host//",
        CACHE_REDIS_PASSWORD="the-store's",
        WEBHOOK_SIGNING_KEY="whsec_c2VjcmV0",
    )
    line = "unit-test-key the-store's whsec_c2VjcmV0 p%40ss-of-broker p@ss-of-broker"
    assert Redaction(found.secrets()).text(line) == "*** *** *** *** ***"


def test_a_brokers_password_that_is_a_common_word_hides_no_word() -> None:
    found = settings(CELERY_BROKER_URL="amqp://guest:guest@host//")
    assert Redaction(found.secrets()).text("a guest came") == "a guest came"


@pytest.mark.parametrize(
    "line",
    [
        "{'password': b'hunter2hunter2'}",
        "[(b'x-api-key', b'hunter2hunter2'), (b'accept', b'*/*')]",
        "('Authorization', 'hunter2hunter2')",
        "secret_key=hunter2hunter2",
        "SIGNING-KEY: hunter2hunter2",
        'passphrase="hunter2hunter2"',
    ],
)
def test_what_libraries_print_of_headers_and_keys_is_hidden(line: str) -> None:
    shown = Redaction([]).text(line)
    assert "hunter2" not in shown
    assert "***" in shown
    assert "hunter2" not in Redaction([]).json(json.dumps({"event": line}))
