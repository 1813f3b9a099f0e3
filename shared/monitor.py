"""`python -m shared.monitor`: the process that shows queues, workers and executions to Prometheus. It takes no message.

It needs the broker and the state store alone, and nothing that tasks need is imported.
"""

import shared.without_extras  # noqa: F401, I001 # first: it must come before Celery

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from celery.app.control import Control
from kombu.messaging import Consumer, Producer
from kombu.pidbox import Mailbox

from config.beat_schedule import TICK_KEY
from config.queue_routing import DEAD_LETTERS, QUEUES
from config.workers import MONITOR_HEALTH_PORT
from monitoring.fleet import Executions, Fleet
from monitoring.prometheus_metrics import BUILD
from monitoring.queue_exporter import FAILURES, Exporter, Source, Standstill
from monitoring.rabbitmq import Management, RabbitMQ
from monitoring.redis_queues import RedisQueues
from monitoring.registry import KEPT
from monitoring.server import Answer, HealthServer, Page, as_json
from shared.application import Application
from shared.celery_settings import publisher_settings, publishing_options
from shared.config import MonitorSettings
from shared.logging_utils import configure_logging, get_logger, log_crashes
from shared.overrides import health_port
from shared.redis_connection import broker_client, redis_client
from shared.state_store import REGISTER_KEY
from shared.variables import SettingsError
from shared.versions import versions

log = get_logger(__name__)

_QUEUES = (*QUEUES, DEAD_LETTERS)
# Workers that answer later are taken for absent in that round.
_ANSWER_SECONDS = 1.0
# Every wait is bounded: a round that takes this long hangs in a way that nobody thought of.
_LONGEST_SECONDS = 60.0


class _Producer(Producer):  # type: ignore[misc] # kombu ships no types
    def publish(self, *args: Any, **options: Any) -> Any:
        return super().publish(*args, **options | {"retry": False})


class _Mailbox(Mailbox):
    """kombu's, which would ask over a connection of its own, again and again until a lost broker is back."""

    @contextmanager
    def producer_or_acquire(self, _producer: Any = None, channel: Any = None) -> Iterator[Producer]:
        yield _Producer(channel, auto_declare=False)

    def _collect(self, ticket: str, *_: Any, timeout: float = 1, channel: Any = None, **__: Any) -> list[Any]:
        """The answers that come in time. One that is no JSON is another platform's, and no reason to hear nobody."""
        found: list[Any] = []
        connection: Any = self.connection

        def take(body: Any, message: Any) -> None:
            if message.headers.get("ticket") == ticket:
                found.append(body)

        until = time.monotonic() + timeout
        with Consumer(
            channel, [self.reply_queue], callbacks=[take], no_ack=True, accept=["json"], on_decode_error=_pass_by
        ):
            while (left := until - time.monotonic()) > 0:
                try:
                    connection.drain_events(timeout=left)
                except TimeoutError:
                    break
        channel.after_reply_message_received(self.reply_queue.name)
        return found


def _pass_by(_message: Any, _error: Exception) -> None: ...


class _Control(Control):  # type: ignore[misc] # Celery ships no types
    Mailbox = _Mailbox


class Workers:
    """Asks all workers on the broker what they do, over one connection that is kept."""

    def __init__(self, app: Application) -> None:
        self._app, self._connection = app, app.connection_for_write()

    def __call__(self) -> Mapping[str, Any]:
        """What each that answers in time says, by the name of its node."""
        try:
            inspect = self._app.control.inspect(timeout=_ANSWER_SECONDS, connection=self._connection)
            found: Mapping[str, Any] = inspect.report() or {}
        except FAILURES:
            self._connection.collect(socket_timeout=1)
            raise
        return found


def sources(settings: MonitorSettings) -> dict[str, Source]:
    """All that is asked, by name. Nothing is connected to yet."""
    url, standstill = settings.broker_url.reveal(), Standstill()
    on_redis = url.startswith("redis")
    app = Application("monitor", url, publishing_options(settings), control=_Control)
    app.conf.update(publisher_settings(settings))
    found: dict[str, Source] = {
        "workers": Fleet(Workers(app), _QUEUES if on_redis else (), standstill),
        "state_store": Executions(redis_client(settings), REGISTER_KEY, TICK_KEY),
    }
    if on_redis:
        return found | {"broker": RedisQueues(broker_client(settings), _QUEUES, standstill)}
    found["broker"] = RabbitMQ(app.connection_for_write, _QUEUES, standstill)
    if settings.management_url:
        vhost = app.connection_for_read().virtual_host or "/"
        found["management"] = Management(settings.management_url.reveal(), vhost, _QUEUES, standstill)
    return found


def pages(exporter: Exporter, interval: float) -> Mapping[str, Page]:
    """What is answered over HTTP, by path. No page asks anybody.

    It is ready once every source was asked: taken out of its service while the broker is away, it could not say so.
    """

    def live(_: str) -> Answer:
        age = exporter.age
        return as_json({"slowest_round_ended_seconds_ago": round(age, 1)}, ok=age <= interval + _LONGEST_SECONDS)

    def ready(_: str) -> Answer:
        return as_json({"status": "ready" if exporter.asked else "starting"}, ok=exporter.asked)

    def health(_: str) -> Answer:
        answering = {name: bool(ok) for (name,), ok in exporter.answering().items()}
        return as_json({"answering": answering, **versions()}, ok=exporter.asked and all(answering.values()))

    def metrics(accept: str) -> Answer:
        body, kind = KEPT.exposition(accept)
        return Answer(body, kind=kind)

    return {
        "/livez": live,
        "/readyz": ready,
        "/health": health,
        "/health/quick": health,
        "/version": lambda _: as_json(versions()),
        "/metrics": metrics,
    }


def report(settings: MonitorSettings, name: str, error: Exception | None) -> None:
    """Log that a source stopped answering, or answers again."""
    if error is None:
        log.info("source_answers", source=name)
    else:
        log.warning("source_silent", source=name, reason=settings.hide(f"{type(error).__name__}: {error}"))


def main() -> None:
    """Show what there is until told to stop. Where it cannot start it ends with 1, and the reason."""

    def leave(*_: object) -> NoReturn:
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        settings, port = MonitorSettings.load(), health_port("monitor", MONITOR_HEALTH_PORT)
    except SettingsError as error:
        sys.exit(f"workers: monitor cannot start:\n{error}")
    configure_logging(settings.log_level, settings.log_format, settings.secrets())
    log_crashes()
    exporter = Exporter(sources(settings), settings.monitor_interval, partial(report, settings))
    try:
        server = HealthServer(settings.health_host, port, pages(exporter, settings.monitor_interval))
    except OSError as error:
        sys.exit(f"workers: monitor cannot start:\nit cannot listen on {settings.health_host}:{port}: {error.strerror}")
    ran = versions()
    build = (ran["version"], "monitor", "", ran["celery"], ran["python"])
    BUILD.read(lambda: {build: 1})
    exporter.start()
    server.start()
    log.info("monitor_ready", port=server.port, **settings.describe())
    while True:
        time.sleep(3_600)


if __name__ == "__main__":
    main()
