"""Webhooks through a real worker on real brokers: retried with one key, kept when given up, marked at the backend."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery.contrib.testing.worker import start_worker
from kombu import pools
from kombu.connection import Connection
from standardwebhooks.webhooks import Webhook

from config.queue_routing import DEAD_LETTERS
from config.workers import PROFILES
from general.told_events import ToldEvents
from monitoring.registry import KEPT
from sandbox.stack import wait_for
from shared.call import WorkerApp
from shared.celery_app import build_app
from shared.errors import StateStoreError
from tests.fakes import settings, soon_again
from tests.integration.client.hostile import HostileServer, Peer, Received, answer, reset
from tests.integration.webhooks.conftest import LOOPBACK, MakeReceiver

SIGNING_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRET = "s3cret"
ASKED_SECONDS = 1
ROWS = {"buffer_row_ids": ["r1", "r2"], "organization_id": 26}
EVENT = {"execution_id": "e1", "status": "COMPLETED"}
Sequel = Callable[[Received, Peer], None]


def in_turn(*statuses: str) -> Sequel:
    """Answer with these, one after the other, and with the last from then on."""
    left = list(statuses)

    def script(_request: Received, peer: Peer) -> None:
        status = left.pop(0) if len(left) > 1 else left[0]
        asked = {"Retry_After": str(ASKED_SECONDS)} if status.startswith("429") else {}
        peer.send(answer({"said": SECRET}, status, **asked))

    return script


@pytest.fixture
def broker() -> str:
    return "redis"


@pytest.fixture
def broker_url(broker: str, request: pytest.FixtureRequest) -> str:
    if broker == "redis":
        request.getfixturevalue("redis_connection")  # which empties it
    url: str = request.getfixturevalue(f"{broker}_url")
    return url


# A RabbitMQ worker in this process takes ten seconds to end.
on_both = pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.matrix)])


@pytest.fixture
def backend(receive: MakeReceiver) -> HostileServer:
    def marked(_request: Received, peer: Peer) -> None:
        peer.send(answer({"status": "success", "updated": 2}))

    return receive(marked)


TIMES = {
    "BROKER_VISIBILITY_TIMEOUT": "10",
    "BROKER_CONSUMER_TIMEOUT": "10",
    "TASK_DEADLINE_SECONDS": "4",
    "BATCH_SLICE_SECONDS": "2",
    "INTERNAL_API_TIMEOUT": "1",
    "INTERNAL_API_RETRY_ATTEMPTS": "1",
    "DRAIN_SECONDS": "1",
}


@pytest.fixture
def app(broker_url: str, redis_url: str, backend: HostileServer) -> Iterator[WorkerApp]:
    """The general worker in this process, and two backends: one that it is told of, and the receivers of tests."""
    store = urlsplit(redis_url)
    found = settings(
        **LOOPBACK,
        **TIMES,
        CACHE_REDIS_HOST=store.hostname or "",
        CACHE_REDIS_PORT=str(store.port),
        CACHE_REDIS_PASSWORD=store.password or "",
        CELERY_BROKER_URL=broker_url,
        INTERNAL_API_BASE_URL=backend.url,
        WEBHOOK_SIGNING_KEY=SIGNING_KEY,
    )
    app = build_app(soon_again(PROFILES["general"]), found)
    with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False, shutdown_timeout=20):
        yield app
    app.resources.close()
    pools.reset()  # kombu's connections outlive the application, and remember which queues there were


def send(app: WorkerApp, server: HostileServer, **kwargs: Any) -> None:
    url = f"http://127.0.0.1:{server.port}/{SECRET}"
    args = [url, EVENT, {"X-Auth": SECRET}, 5]
    said = {"max_retries": 3, "retry_delay": 0.01, "platform": "API", "new_in_2027": 1, **kwargs}
    app.send_task("send_webhook_notification", args=args, kwargs=said, queue="notifications")


def counted(name: str, /, **labels: str) -> Callable[[], float]:
    """How often that has happened since now."""

    def count() -> float:
        return KEPT.value(name, **labels)

    before = count()
    return lambda: count() - before


def marks(backend: HostileServer) -> list[tuple[str, str, Any]]:
    return [
        (
            came.target.removeprefix("/internal/v1/webhook/buffer/"),
            came.headers["x-organization-id"],
            json.loads(came.body),
        )
        for came in list(backend.requests)
    ]


def dead_letters(url: str) -> list[Any]:
    found = []
    with Connection(url) as connection, connection.channel() as channel:
        while (message := channel.basic_get(DEAD_LETTERS)) is not None:
            channel.basic_ack(message.delivery_tag)
            found.append(message)
    return found


@on_both
def test_every_send_of_a_webhook_has_one_key_and_a_signature(
    app: WorkerApp, backend: HostileServer, receive: MakeReceiver
) -> None:
    server = receive(in_turn("503 Service Unavailable", "429 Too Many Requests", "200 OK"))
    delivered = counted("workers_webhooks_total", outcome="delivered")
    retried = counted("workers_webhooks_total", outcome="retried")
    send(app, server, **ROWS)
    wait_for(lambda: len(backend.requests) == 1, 20, "the mark")
    assert len(server.requests) == 3
    assert len({came.headers["idempotency-key"] for came in server.requests}) == 1
    assert server.requests[2].at - server.requests[1].at >= ASKED_SECONDS
    for came in server.requests:
        assert came.headers["webhook-id"] == came.headers["idempotency-key"]
        assert Webhook(SIGNING_KEY).verify(came.body, came.headers) == EVENT
    assert marks(backend) == [("mark/dispatched/", "26", ROWS)]
    assert (delivered(), retried()) == (1, 2)


@on_both
def test_what_is_refused_is_kept_and_marked(
    app: WorkerApp, backend: HostileServer, receive: MakeReceiver, broker_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server = receive(in_turn("410 Gone"))
    dropped = counted("workers_webhooks_dropped_total", reason="rejected")
    send(app, server, **ROWS)
    wait_for(lambda: len(backend.requests) == 1, 20, "the mark")
    assert marks(backend) == [("mark/dead-letter/", "26", ROWS)]
    assert (len(server.requests), dropped()) == (1, 1)
    (kept,) = dead_letters(broker_url)
    assert kept.headers["kept_from"] == "notifications"
    assert kept.headers["kept_because"] == "a webhook's receiver, 127.0.0.1, answered 410"
    assert json.loads(kept.body)[0][1] == EVENT
    assert SECRET not in "".join(capfd.readouterr())


def test_retries_end(app: WorkerApp, backend: HostileServer, receive: MakeReceiver, broker_url: str) -> None:
    server = receive(in_turn("500 Internal Server Error"))
    dropped = counted("workers_webhooks_dropped_total", reason="exhausted")
    send(app, server, max_retries=2, **ROWS)
    wait_for(lambda: len(backend.requests) == 1, 20, "the mark")
    assert marks(backend) == [("mark/dead-letter/", "26", ROWS)]
    assert (len(server.requests), dropped()) == (3, 1)
    (kept,) = dead_letters(broker_url)
    assert "answered 500; given up after 3 sends" in kept.headers["kept_because"]


def test_a_backend_that_is_away_hears_of_it_later_and_the_receiver_once(
    app: WorkerApp, backend: HostileServer, receive: MakeReceiver
) -> None:
    server, well = receive(in_turn("200 OK")), backend.script
    left = [1, 2, 3]

    def away_at_first(request: Received, peer: Peer) -> None:
        if left:
            left.pop()
            peer.reset()
        else:
            well(request, peer)

    backend.script = away_at_first
    told = counted("celery_task_succeeded_total", name="workers.mark_notifications", queue_name="notifications")
    send(app, server, **ROWS)
    wait_for(lambda: told() == 1, 20, "the mark")
    assert len(server.requests) == 1
    assert {kind for kind, _, _ in marks(backend)} == {"mark/dispatched/"}


def test_a_message_that_cannot_be_read_is_kept_unseen(
    app: WorkerApp, broker_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    dropped = counted("workers_webhooks_dropped_total", reason="failed")
    app.send_task("send_webhook_notification", args=[SECRET, [SECRET]], queue="notifications_priority")
    wait_for(lambda: dropped() == 1, 20, "the end")
    (kept,) = dead_letters(broker_url)
    assert "payload" in kept.headers["kept_because"]
    assert SECRET not in kept.headers["kept_because"]
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("task", "queue"),
    [("process_log_history", "celery_periodic_logs"), ("process_notification_buffer", "notifications")],
)
def test_a_round_that_fails_is_left_to_the_next(
    app: WorkerApp, backend: HostileServer, broker_url: str, task: str, queue: str
) -> None:
    backend.script = reset
    failed = counted("celery_task_failed_total", name=task, queue_name=queue)
    retried = counted("celery_task_retried_total", name=task, queue_name=queue)
    app.send_task(task, queue=queue)
    wait_for(lambda: failed() == 1, 20, "the end")
    assert (len(backend.requests), retried()) == (1, 0)
    assert dead_letters(broker_url) == []


def test_a_state_store_that_is_away_uses_up_no_send(
    app: WorkerApp, receive: MakeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, away = receive(in_turn("200 OK")), [StateStoreError("away")] * 2
    known = ToldEvents.of

    def of(self: ToldEvents, *args: Any) -> set[str]:
        if away:
            raise away.pop()
        return known(self, *args)

    monkeypatch.setattr(ToldEvents, "of", of)
    send(app, server, max_retries=0)
    wait_for(lambda: len(server.requests) == 1, 20, "the webhook")
