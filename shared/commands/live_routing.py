"""The routing table against a broker: which of its queues exist there, as what, and who consumes them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amqp.exceptions import AMQPError, NotFound, PreconditionFailed
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from redis import RedisError

from config.queue_routing import DEAD_LETTERS, QUEUES, route_of
from shared.application import Application
from shared.celery_settings import platform_queue

_CONNECT_SECONDS = 4
# Workers that answer later are taken for absent.
_ANSWER_SECONDS = 1.0


def live_problems(url: str, queues: Sequence[str], queue_type: str, *, alone: bool = False) -> Iterator[str]:
    """What is wrong on that broker with these queues, a line each with its remedy.

    With `alone` only whether anybody but our workers consumes them: what others began to fan out cannot be folded in by
    ours, nor the other way round.
    """
    try:
        with Connection(url, connect_timeout=_CONNECT_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=_CONNECT_SECONDS)
            rabbitmq = connection.transport.driver_type == "amqp"
            with Application("routing", url, set_as_current=False) as app:
                inspect = app.control.inspect(timeout=_ANSWER_SECONDS)
                consumed, tasks = inspect.active_queues() or {}, inspect.registered() or {}
                ours = {node for node, said in (inspect.report() or {}).items() if "profile" in said}
            if alone:
                yield from _intruders(connection, queues, consumed, ours)
                return
            for queue in queues:
                if rabbitmq:
                    yield from _declared(connection, queue, queue_type)
                elif not any(queue == one["name"] for held in consumed.values() for one in held):
                    yield f"queue {queue} has no consumer there; start a worker that has it"
    except (OperationalError, AMQPError, RedisError, OSError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        yield f"the broker cannot be asked: {why}; is --broker its address, with user, password and vhost?"
        return
    yield from _strangers(consumed, tasks)


def _declared(connection: Connection, queue: str, queue_type: str) -> Iterator[str]:
    try:
        with connection.channel() as channel:
            found = channel.queue_declare(queue, passive=True)
    except NotFound:
        yield f"queue {queue} does not exist there; start a worker that has it, or messages to it are lost"
        return
    if not found.consumer_count:
        yield f"queue {queue} has no consumer there, and {found.message_count} messages; start a worker that has it"
    try:
        with connection.channel() as channel:
            # It exists: this changes nothing, and says whether it is what our workers declare.
            platform_queue(queue, queue_type)(channel).declare()
    except PreconditionFailed as refused:
        yield f"queue {queue} is not {queue_type} there ({refused}); say --queue-type, and CELERY_QUEUE_TYPE likewise"


def _intruders(
    connection: Connection, queues: Sequence[str], consumed: Mapping[str, Sequence[Mapping[str, Any]]], ours: set[str]
) -> Iterator[str]:
    """Whoever consumes these queues and is no worker of ours, be it that it answers or that RabbitMQ counts it."""
    for queue in queues:
        nodes = [node for node, held in consumed.items() if any(one["name"] == queue for one in held)]
        for node in sorted(set(nodes) - ours):
            yield f"{node} consumes {queue}, and is no worker of ours; stop it first, or use a vhost of your own"
        silent = _consumers(connection, queue) - len(nodes)
        if silent > 0:
            yield f"queue {queue} has {silent} consumers that do not answer; find out whose they are, and stop them"


def _consumers(connection: Connection, queue: str) -> int:
    """As RabbitMQ counts them; 0 where it does not exist, or on Redis, which does not count."""
    if connection.transport.driver_type != "amqp":
        return 0
    try:
        with connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).consumer_count)
    except NotFound:
        return 0


def _strangers(
    consumed: Mapping[str, Sequence[Mapping[str, Any]]], tasks: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    for node, held in consumed.items():
        for queue in (one["name"] for one in held):
            if queue not in QUEUES and queue != DEAD_LETTERS:
                yield f"{node} consumes {queue}, which no rule has; is it another release, or another platform's?"
    for node, names in tasks.items():
        for name in names:
            if route_of(name.partition(" ")[0]) is None and not name.startswith("celery."):
                yield f"{node} has task {name}, which no rule has; is it another release, or another platform's?"
