"""The queues of RabbitMQ: over a connection as its clients have it, and over its management API where that is given."""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from amqp.exceptions import NotFound
from kombu.connection import Connection

from monitoring.prometheus_metrics import QUEUE_CONSUMERS, QUEUE_LENGTH, QUEUE_STANDSTILL, QUEUE_UNACKNOWLEDGED
from monitoring.queue_exporter import FAILURES, Clock, Found, Standstill

# RabbitMQ writes a line into its log each time somebody asks for a queue that does not exist.
_MISSING_SECONDS = 60.0
_API_SECONDS = 3.0
_LARGEST = 32 << 20  # bytes: half a KiB for each queue of the virtual host
_COLUMNS = "name,messages_unacknowledged,message_stats.ack,message_stats.deliver_get,message_stats.redeliver"


class RabbitMQ:
    """Declares queues passively, which changes nothing: RabbitMQ answers how many messages and consumers they have.

    One connection is kept. https://www.rabbitmq.com/docs/queues#passive-declaration

    Args:
        connect: a new connection, with bounded waits; it is made when it is used.
        queues: the names of queues.
        standstill: hears which moved: those that have become shorter. Of one with as much inflow as outflow this does
            not see it; others tell.
        clock: seconds, steadily growing.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        queues: Sequence[str],
        standstill: Standstill,
        clock: Clock = time.monotonic,
    ) -> None:
        self._connect, self._queues, self._standstill, self._clock = connect, queues, standstill, clock
        self._connection: Connection | None = None
        self._channel: Any = None
        self._depths: dict[str, int] = {}
        self._missing: dict[str, float] = {}

    def __call__(self) -> Found:
        """Depth, standstill and consumers of each queue that exists."""
        try:
            declared = {queue: found for queue in self._queues if (found := self._declared(queue)) is not None}
        except FAILURES:
            self.close()
            raise
        still: dict[tuple[str, ...], float] = {}
        for queue, (depth, _) in declared.items():
            if depth < self._depths.get(queue, 0):
                self._standstill.moved(queue)
            still[queue,] = self._standstill.seconds(queue, depth)
        self._depths = {queue: depth for queue, (depth, _) in declared.items()}
        return {
            QUEUE_LENGTH: {(queue,): depth for queue, (depth, _) in declared.items()},
            QUEUE_CONSUMERS: {(queue,): consumers for queue, (_, consumers) in declared.items()},
            QUEUE_STANDSTILL: still,
        }

    def _declared(self, queue: str) -> tuple[int, int] | None:
        """Messages that wait and consumers; None if there is no such queue."""
        if self._clock() < self._missing.get(queue, 0):
            return None
        if self._connection is None:
            self._connection = self._connect()
        if self._channel is None:
            self._channel = self._connection.channel()
        try:
            found = self._channel.queue_declare(queue, passive=True)
        except NotFound:
            self._channel = None  # the broker has closed it
            self._missing[queue] = self._clock() + _MISSING_SECONDS
            return None
        return found.message_count, found.consumer_count

    def close(self) -> None:
        """Forget the connection, without waiting for the broker."""
        if self._connection is not None:
            self._connection.collect(socket_timeout=1)
        self._connection = self._channel = None
        self._missing.clear()


class Management:
    """Asks RabbitMQ's management API: what it alone knows, by one request.

    https://www.rabbitmq.com/docs/management#http-api. Not over a proxy, and no redirect is followed: both would
    hear the password.

    Args:
        url: its address, with user and password.
        vhost: the virtual host.
        queues: the names of queues.
        standstill: hears which moved: those of which messages were acknowledged, or delivered for the first time.
    """

    def __init__(self, url: str, vhost: str, queues: Sequence[str], standstill: Standstill) -> None:
        self._address = urlsplit(url)
        self._path = f"{self._address.path.rstrip('/')}/api/queues/{quote(vhost, safe='')}?columns={_COLUMNS}"
        self._queues, self._standstill = queues, standstill
        self._counted: dict[str, tuple[int, int]] = {}

    def __call__(self) -> Found:
        """What is unacknowledged of each queue that exists.

        Raises:
            ValueError: the answer is not what the API answers.
        """
        unacknowledged: dict[tuple[str, ...], float] = {}
        for row in self._rows():
            queue = str(row.get("name"))
            if queue not in self._queues:
                continue
            counted = _counted(row.get("message_stats"))
            if counted != self._counted.setdefault(queue, counted):
                self._standstill.moved(queue)
            self._counted[queue] = counted
            if isinstance(waiting := row.get("messages_unacknowledged"), int):
                unacknowledged[queue,] = waiting
        return {QUEUE_UNACKNOWLEDGED: unacknowledged}

    def _rows(self) -> list[Mapping[str, Any]]:
        user = f"{unquote(self._address.username or '')}:{unquote(self._address.password or '')}"
        headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
        connection = self._connection()
        try:
            connection.request("GET", self._path, headers=headers)
            answer = connection.getresponse()
            body = answer.read(_LARGEST)
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise ValueError(f"the management API answers {answer.status} {answer.reason}")
        rows = json.loads(body)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("the management API answers no list of queues")
        return rows

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port
        if self._address.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_API_SECONDS)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=_API_SECONDS, context=context)


def _counted(stats: object) -> tuple[int, int]:
    """What was acknowledged, and what was delivered for the first time; nothing where nothing ever was."""
    counts = stats if isinstance(stats, dict) else {}
    delivered, again = counts.get("deliver_get", 0), counts.get("redeliver", 0)
    return counts.get("ack", 0), delivered - again
