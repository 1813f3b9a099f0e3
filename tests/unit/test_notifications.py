"""What comes of a webhook: by its answer, by its retries, and for the backend's buffer."""

import json
import pickle
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.queue_routing import DEAD_LETTERS
from general.logs import LogLine, consume, record_of
from general.notifications import Delivery, Marks, deliver, give_up, judge, longest_wait, mark, post_of, wait_before
from general.told_events import ToldEvents
from general.webhooks import Answer, Post, Webhooks, address
from shared.deadline import Deadline
from shared.errors import (
    BackendUnavailableError,
    PayloadError,
    StateStoreError,
    UndeliverableError,
    UndeliveredError,
)
from shared.models import parse
from tests.fakes import FakeApp, settings

SECRET = "s3cret"
URL = f"https://hooks.invalid/{SECRET}"
ROWS = {"buffer_row_ids": ["r1", "r2"], "organization_id": 26}


def delivery(**more: Any) -> Delivery:
    said = {"url": URL, "payload": {"execution_id": "e1", "text": SECRET}, "headers": {"X-Auth": SECRET}}
    return parse(Delivery, {**said, **more})


class FakeWebhooks:
    """Answers in turn, and keeps what was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.sent = list(answers), list[tuple[Post, Deadline]]()

    def send(self, post: Post, deadline: Deadline) -> Answer:
        self.sent.append((post, deadline))
        return self.answers.pop(0)

    def __call__(self) -> Webhooks:
        return cast("Webhooks", self)


def answered(status: int | None, retry_after: float | None = None) -> Answer:
    return Answer("hooks.invalid", status, str(status), retry_after)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_two_hundreds_are_deliveries(status: int) -> None:
    judge(answered(status), delivery(), 0, 600)


@pytest.mark.parametrize("status", [None, 408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_sent_again_until_its_retries_are_used_up(status: int | None) -> None:
    with pytest.raises(UndeliveredError) as again:
        judge(answered(status), delivery(max_retries=2, retry_delay=10), 1, 600)
    assert 10 <= again.value.wait <= 20
    with pytest.raises(UndeliverableError, match="given up after 3 sends") as over:
        judge(answered(status), delivery(max_retries=2), 2, 600)
    assert over.value.reason == "exhausted"


@pytest.mark.parametrize("status", [300, 304, 307, 400, 401, 403, 404, 410, 422])
def test_a_no_is_final(status: int) -> None:
    with pytest.raises(UndeliverableError) as caught:
        judge(answered(status), delivery(max_retries=9), 0, 600)
    assert caught.value.reason == "rejected"


@given(
    st.floats(0, 1e6),
    st.integers(0, 10_000),
    st.none() | st.floats(0, allow_nan=False),
    st.floats(1, 600),
)
def test_waits_grow_and_end_somewhere(delay: float, retries: int, asked: float | None, longest: float) -> None:
    wait = wait_before(delay, retries, asked, longest)
    whole = min(longest, delay * 2.0 ** min(retries, 60))
    assert whole / 2 <= wait <= longest
    assert wait <= max(whole, asked or 0)
    assert wait >= min(asked or 0, longest)


def test_a_wait_is_shorter_than_the_broker_s_patience() -> None:
    assert longest_wait(settings()) == 300
    assert longest_wait(settings(BROKER_VISIBILITY_TIMEOUT="400")) == 200
    rabbitmq = "amqp://guest:guest@rabbitmq.invalid//"
    assert longest_wait(settings(CELERY_BROKER_URL=rabbitmq, BROKER_VISIBILITY_TIMEOUT="400")) == 600


def test_a_delivery_is_marked_with_the_key_of_its_organization() -> None:
    app, sent = FakeApp(), FakeWebhooks(answered(200))
    assert deliver(app.call(), delivery(**ROWS), sent())["http_status"] == 200
    assert app.backend.marks == [("dispatched", ["r1", "r2"], 26)]
    assert app.backend.organization_id == "26"
    ((post, deadline),) = sent.sent
    assert json.loads(post.body) == {"execution_id": "e1", "text": SECRET}
    assert post.credentials == {"X-Auth": SECRET}
    assert post.headers.keys() == {"Content-Type", "Idempotency-Key"}
    assert 9 < deadline.remaining <= 10


def event(name: str) -> dict[str, Any]:
    return {"execution_id": name, "status": "COMPLETED", "idempotency_key": f"{name}:hook"}


def test_an_event_that_comes_in_two_messages_is_told_once() -> None:
    app, sent = FakeApp(), FakeWebhooks(*[answered(200)] * 3)
    app.things["told_events"] = ToldEvents(app.redis)
    deliver(app.call(), delivery(payload=event("e1"), **ROWS), sent())
    clubbed = {"count": 2, "notifications": [event("e1"), event("e2")]}
    deliver(app.call(), delivery(payload=clubbed, **ROWS), sent())
    assert deliver(app.call(), delivery(payload=clubbed, **ROWS), sent())["status"] == "told_before"
    bodies = [json.loads(post.body) for post, _ in sent.sent]
    assert bodies == [event("e1"), {"count": 1, "notifications": [event("e2")]}]
    assert len(app.backend.marks) == 3
    assert not any(secret in key for key in app.kept() for secret in (URL, "e1:", "e2:"))
    elsewhere = delivery(url="https://elsewhere.invalid/", payload=event("e1"), **ROWS)
    assert deliver(app.call(), elsewhere, sent())["status"] == "delivered"


def test_what_was_not_delivered_is_not_remembered_as_told() -> None:
    app, sent = FakeApp(), FakeWebhooks(answered(503))
    app.things["told_events"] = ToldEvents(app.redis)
    with pytest.raises(UndeliveredError):
        deliver(app.call(), delivery(payload=event("e1"), max_retries=3), sent())
    assert app.kept() == set()


def test_what_was_delivered_is_not_sent_again_since_it_cannot_be_remembered() -> None:
    app, sent = FakeApp(), FakeWebhooks(answered(200))

    class Forgetful(ToldEvents):
        def add(self, *_said: Any) -> None:
            raise StateStoreError("away")

    app.things["told_events"] = Forgetful(app.redis)
    assert deliver(app.call(), delivery(payload=event("e1"), **ROWS), sent())["status"] == "delivered"
    assert app.backend.marks == [("dispatched", ["r1", "r2"], 26)]


def test_time_is_the_lesser_of_the_message_s_and_ours() -> None:
    app, sent = FakeApp(settings=settings(WEBHOOK_TIMEOUT="2")), FakeWebhooks(answered(200))
    deliver(app.call(), delivery(timeout=300), sent())
    assert sent.sent[0][1].remaining <= 2


def test_a_mark_that_fails_is_sent_as_a_message_and_never_the_webhook_again() -> None:
    app, sent = FakeApp(), FakeWebhooks(answered(200))
    app.backend.refusals["mark_dispatched"] = BackendUnavailableError("away")
    assert deliver(app.call(), delivery(**ROWS), sent())["status"] == "delivered"
    (later,) = app.sent
    assert (later.task, later.queue) == ("workers.mark_notifications", "notifications")
    app.backend.refusals.clear()
    assert mark(app.call(), parse(Marks, later.kwargs)) == {"updated": 2}
    assert app.backend.marks == [("dispatched", ["r1", "r2"], 26)]


def test_rows_are_marked_for_an_organization_or_not_at_all() -> None:
    app, sent = FakeApp(), FakeWebhooks(answered(200))
    deliver(app.call(), delivery(buffer_row_ids=["r1"]), sent())
    assert app.backend.marks == []
    with pytest.raises(PayloadError, match="organization"):
        mark(app.call(), parse(Marks, {"buffer_row_ids": ["r1"], "state": "dead"}))


def test_neither_does_a_mark_that_cannot_be_sent() -> None:
    app, sent = FakeApp(broker_is_away=True), FakeWebhooks(answered(200))
    app.backend.refusals["mark_dispatched"] = BackendUnavailableError("away")
    assert deliver(app.call(), delivery(**ROWS), sent())["status"] == "delivered"


def test_what_was_given_up_is_not_sent_again_when_it_could_not_be_kept() -> None:
    sent = FakeWebhooks()
    with pytest.raises(UndeliverableError):
        deliver(FakeApp().call(sends=4), delivery(max_retries=3), sent())
    assert sent.sent == []


def test_what_is_given_up_is_kept_and_marked_dead() -> None:
    app = FakeApp()
    error = UndeliverableError("a webhook's receiver, hooks.invalid, answered 410", "rejected")
    give_up(app.call("send_webhook_notification", queue="notifications"), error, URL, {}, {"X": SECRET}, 10, **ROWS)
    (kept,) = app.sent
    assert (kept.queue, kept.args[0], kept.kwargs) == (DEAD_LETTERS, URL, ROWS)
    assert SECRET not in kept.headers["kept_because"]
    assert app.backend.marks == [("dead", ["r1", "r2"], 26)]


def test_a_message_that_nobody_can_read_is_kept_all_the_same() -> None:
    app = FakeApp()
    give_up(app.call(), PayloadError("nonsense"), 1, buffer_row_ids="no list")
    assert [kept.queue for kept in app.sent] == [DEAD_LETTERS]
    assert app.backend.marks == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": ""},
        {"payload": [SECRET]},
        {"headers": {"X": 1}},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"max_retries": -1},
        {"retry_delay": float("inf")},
        {"organization_id": "org"},
    ],
)
def test_what_is_not_the_contract_s_is_refused_unseen(wrong: dict[str, Any]) -> None:
    with pytest.raises(PayloadError) as caught:
        delivery(**wrong)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"headers": {"X": f"{SECRET}\n"}}, {"payload": {SECRET: float("nan")}}])
def test_what_cannot_be_sent_is_refused_unseen(wrong: dict[str, Any]) -> None:
    with pytest.raises(PayloadError) as caught:
        post_of(FakeApp().call(), delivery(**wrong))
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_key_that_is_given_is_taken() -> None:
    assert post_of(FakeApp().call(), delivery(idempotency_key="k-1")).headers["Idempotency-Key"] == "k-1"
    with pytest.raises(PayloadError, match="Idempotency-Key"):
        post_of(FakeApp().call(), delivery(idempotency_key="k\n1", headers={"Idempotency-Key": "theirs"}))
    theirs = delivery(idempotency_key="k-1", headers={"idempotency-key": "theirs"})
    assert post_of(FakeApp().call(), theirs).credentials == {}


@pytest.mark.parametrize(
    "url",
    [
        "nope",
        "ftp://a.invalid/",
        "file:///etc/passwd",
        "http://",
        f"http://user:{SECRET}@a.invalid/",
        f"http://{SECRET}@a.invalid/",
        "http://a.invalid:0/",
        "http://a.invalid:99999/",
        f"http://a.invalid/{SECRET}\n",
        "http://[::1",
        f"http://a.invalid/{SECRET * 20_000}",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_unseen(url: str) -> None:
    with pytest.raises(UndeliverableError) as caught:
        address(url)
    assert caught.value.reason == "refused"
    assert SECRET not in str(caught.value)


def test_credentials_go_to_their_origin_alone() -> None:
    post = Post(address("https://a.invalid/1"), b"{}", {"Content-Type": "x"}, {"X-Auth": SECRET})
    assert post.towards("/2").credentials
    assert post.towards("https://a.invalid:443/2").credentials
    for other in ("https://b.invalid/", "http://a.invalid/", "//a.invalid:8443/"):
        assert post.towards(other).credentials == {}
        assert post.towards(other).towards("https://a.invalid/1").credentials == {}


def test_its_errors_cross_from_one_process_to_another() -> None:
    found = pickle.loads(pickle.dumps(UndeliverableError("no", "refused")))  # noqa: S301 # our own bytes
    assert (str(found), found.reason) == ("no", "refused")


class FakeRecords:
    """A list that keeps records, by their task."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.away = False

    def append(self, task_id: str, record: dict[str, Any], _line: dict[str, Any]) -> bool:
        if self.away:
            raise StateStoreError("away")
        return self.kept.setdefault(task_id, record) is record


MESSAGE = {"execution_id": "e1", "organization_id": "org", "timestamp": 1.5, "type": "LOG", "data": {"m": SECRET}}


def line(message: dict[str, Any]) -> LogLine:
    return parse(LogLine, {"event": "logs:s1", "message": message, "user_session_id": "s1"})


def watched() -> tuple[FakeApp, FakeRecords]:
    records = FakeRecords()
    return FakeApp(things={"log_records": records}), records


def test_a_line_is_recorded_and_shown() -> None:
    app, records = watched()
    assert consume(app.call(), line(MESSAGE | {"other": 1})) == {"recorded": True, "shown": True}
    assert records.kept == {"task-1": MESSAGE}
    assert app.backend.shown == [("s1", "logs:s1", MESSAGE | {"other": 1})]


def test_a_line_that_comes_again_is_neither() -> None:
    app, records = watched()
    consume(app.call(), line(MESSAGE))
    assert consume(app.call(), line(MESSAGE)) == {"recorded": True, "shown": False}
    assert (len(records.kept), len(app.backend.shown)) == (1, 1)


def test_a_line_that_cannot_be_shown_is_recorded() -> None:
    app, records = watched()
    app.backend.refusals["emit"] = BackendUnavailableError("away")
    assert consume(app.call(), line(MESSAGE)) == {"recorded": True, "shown": False}
    assert len(records.kept) == 1


def test_a_line_of_no_execution_is_only_shown() -> None:
    app, records = watched()
    assert consume(app.call(), line({"message": "hi"})) == {"recorded": False, "shown": True}
    assert (records.kept, len(app.backend.shown)) == ({}, 1)


def test_a_line_that_cannot_be_recorded_now_is_not_shown_either() -> None:
    app, records = watched()
    records.away = True
    with pytest.raises(StateStoreError):
        consume(app.call(), line(MESSAGE))
    assert app.backend.shown == []


@pytest.mark.parametrize("message", [{}, {"execution_id": ""}, {"execution_id": None, "data": 1}])
def test_what_names_no_execution_is_no_record(message: dict[str, Any]) -> None:
    assert record_of(message) is None
