"""What becomes of what sources say: numbers that are shown while they are true, and how long a queue stood still."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from monitoring.fleet import Fleet
from monitoring.prometheus_metrics import (
    QUEUE_CONSUMERS,
    QUEUE_LENGTH,
    QUEUE_UNACKNOWLEDGED,
    WORKER_TASKS,
    WORKER_UP,
)
from monitoring.queue_exporter import Exporter, Found, Standstill
from monitoring.rabbitmq import Management

INTERVAL = 5.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A source that says what it is told to."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.error: Exception | None = None

    def __call__(self) -> Found:
        if self.error is not None:
            raise self.error
        return {QUEUE_LENGTH: {("celery",): self.depth}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


def exporter(clock: Clock, said: list[tuple[str, str]], **sources: Scripted) -> Exporter:
    return Exporter(sources, INTERVAL, lambda name, error: said.append((name, str(error or "back"))), clock)


def test_a_queue_stands_still_from_when_it_was_first_seen_until_it_moves_or_is_empty(clock: Clock) -> None:
    queues = Standstill(clock)
    assert queues.seconds("celery", 3) == 0
    clock.now += 60
    assert queues.seconds("celery", 3) == 60
    queues.moved("celery")
    clock.now += 10
    assert queues.seconds("celery", 2) == 10
    assert queues.seconds("celery", 0) == 0
    clock.now += 7
    assert queues.seconds("celery", 1) == 7  # one came since it was seen empty
    assert queues.seconds("scheduler", 1) == 0


def test_a_source_that_fails_has_no_numbers_and_has_them_again_when_it_is_back(clock: Clock) -> None:
    said: list[tuple[str, str]] = []
    source = Scripted(3)
    made = exporter(clock, said, broker=source)
    assert made.answering() == {}  # it was not asked yet
    assert not made.asked
    made.ask("broker")
    assert made.asked
    assert made.numbers(QUEUE_LENGTH) == {("celery",): 3}
    assert made.answering() == {("broker",): 1}
    source.error = OperationalError("gone")
    for _ in range(2):
        made.ask("broker")
    assert made.numbers(QUEUE_LENGTH) == {}
    assert made.answering() == {("broker",): 0}
    source.error, source.depth = None, 4
    made.ask("broker")
    assert made.numbers(QUEUE_LENGTH) == {("celery",): 4}
    assert made.answering() == {("broker",): 1}
    assert said == [("broker", "gone"), ("broker", "back")]


def test_what_a_source_said_is_not_shown_for_ever_while_it_hangs(clock: Clock) -> None:
    made = exporter(clock, [], broker=Scripted(3), workers=Scripted(0))
    made.ask("broker")
    made.ask("workers")
    clock.now += INTERVAL + 1
    assert made.answering() == {("broker",): 1, ("workers",): 1}
    clock.now += 5
    made.ask("workers")
    assert made.answering() == {("broker",): 0, ("workers",): 1}
    assert made.numbers(QUEUE_LENGTH) == {("celery",): 0}
    assert made.age == INTERVAL + 6


def test_an_answer_that_makes_no_sense_is_none(clock: Clock) -> None:
    said: list[tuple[str, str]] = []
    source = Scripted(3)
    source.error = KeyError("messages")
    made = exporter(clock, said, broker=source)
    made.ask("broker")
    assert made.answering() == {("broker",): 0}
    assert said == [("broker", "'messages'")]


NOTHING: dict[str, Any] = {"tasks": {}, "circuits": {}}


def report(*queues: str, busy: int = 0, **taken: int) -> dict[str, Any]:
    return {
        "profile": "all",
        "queues": list(queues),
        "slots": 8,
        "busy": busy,
        "running": [],
        "taken": taken,
        **NOTHING,
    }


def test_a_worker_that_answers_no_more_is_down_for_an_hour_and_then_forgotten(clock: Clock) -> None:
    answers: dict[str, Any] = {"a@host": report("celery", busy=2), "b@host": report("celery", "scheduler")}
    fleet = Fleet(lambda: answers, ("celery", "scheduler", "notifications"), Standstill(clock), clock)
    found = fleet()
    assert found[WORKER_UP] == {("a@host",): 1, ("b@host",): 1}
    assert found[WORKER_TASKS] == {("a@host",): 2, ("b@host",): 0}
    assert found[QUEUE_CONSUMERS] == {("celery",): 2, ("scheduler",): 1, ("notifications",): 0}
    del answers["a@host"]
    clock.now += 3_599
    found = fleet()
    assert found[WORKER_UP] == {("a@host",): 0, ("b@host",): 1}
    assert found[WORKER_TASKS] == {("b@host",): 0}
    assert found[QUEUE_CONSUMERS] == {("celery",): 1, ("scheduler",): 1, ("notifications",): 0}
    clock.now += 1
    assert fleet()[WORKER_UP] == {("b@host",): 1}


def test_a_worker_of_another_platform_is_up_and_no_more_is_known_of_it(clock: Clock) -> None:
    fleet = Fleet(lambda: {"other@host": {"ok": "software -> celery:5.4"}}, (), Standstill(clock), clock)
    found = fleet()
    assert found[WORKER_UP] == {("other@host",): 1}
    assert found[WORKER_TASKS] == {}
    assert found[QUEUE_CONSUMERS] == {}


def test_a_queue_that_a_worker_takes_from_moves_however_many_messages_it_keeps(clock: Clock) -> None:
    standstill = Standstill(clock)
    answers = {"a@host": report("celery", "scheduler", celery=10, scheduler=1)}
    fleet = Fleet(lambda: answers, (), standstill, clock)
    fleet()
    for queue in ("celery", "scheduler"):
        standstill.seconds(queue, 5)
    clock.now += 30
    answers["a@host"] = report("celery", "scheduler", celery=11, scheduler=1)
    fleet()
    assert standstill.seconds("celery", 5) == 0
    assert standstill.seconds("scheduler", 5) == 30


class Api(BaseHTTPRequestHandler):
    """RabbitMQ's management API, as far as it is asked."""

    answer: tuple[int, Any] = (200, [])
    asked: list[tuple[str, str]] = []  # noqa: RUF012 # of all of them

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        status, said = Api.answer
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(said if isinstance(said, bytes) else json.dumps(said).encode())

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests look at what was asked."""


@contextmanager
def api(standstill: Standstill) -> Iterator[Management]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    Api.asked.clear()
    try:
        yield Management(f"http://us%40er:p%3Ass@127.0.0.1:{server.server_port}/prefix/", "/", ("celery",), standstill)
    finally:
        server.shutdown()
        server.server_close()


def row(**stats: int) -> Mapping[str, Any]:
    return {"name": "celery", "messages_unacknowledged": 3, "message_stats": stats}


def test_the_management_api_says_what_is_unacknowledged_and_what_moved(clock: Clock) -> None:
    standstill = Standstill(clock)
    standstill.seconds("celery", 5)
    with api(standstill) as management:
        Api.answer = (200, [row(ack=1, deliver_get=4, redeliver=1), {"name": "somebody's"}])
        assert management() == {QUEUE_UNACKNOWLEDGED: {("celery",): 3}}
        clock.now += 30
        # One was delivered again, which is no movement.
        Api.answer = (200, [row(ack=1, deliver_get=5, redeliver=2)])
        management()
        assert standstill.seconds("celery", 5) == 30
        for moved in (row(ack=2, deliver_get=5, redeliver=2), row(ack=2, deliver_get=6, redeliver=2)):
            Api.answer = (200, [moved])
            management()
            assert standstill.seconds("celery", 5) == 0
            clock.now += 30
        Api.answer = (200, [{"name": "celery"}])  # where statistics are switched off
        assert management() == {QUEUE_UNACKNOWLEDGED: {}}
    path, authorization = Api.asked[0]
    assert path.startswith("/prefix/api/queues/%2F?columns=name,")
    assert authorization == "Basic dXNAZXI6cDpzcw=="  # us@er:p:ss
    assert len(Api.asked) == 5


@pytest.mark.parametrize("answer", [(401, {}), (302, {}), (200, {"error": "?"}), (200, [1]), (200, b"<html>")])
def test_an_answer_that_is_no_list_of_queues_is_an_error(answer: tuple[int, Any], clock: Clock) -> None:
    with api(Standstill(clock)) as management:
        Api.answer = answer
        with pytest.raises(ValueError, match=r"API|Expecting"):
            management()
    assert len(Api.asked) == 1  # nothing is followed
