"""Low queues leave slots to the others of their process: of each, only so many messages are in hand at once.

In hand is what was taken and is not acknowledged, whether it runs or waits for the pool: so this holds for every kind
of pool and any prefetch. RabbitMQ keeps to a limit itself, one for each consumer of a queue. On Redis, a queue that is
at its limit is left out of what is asked for. What a process that lost its broker still works on counts as well.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery.bootsteps import RUN
from kombu.messaging import Consumer
from kombu.utils.scheduling import round_robin_cycle

from config.queue_routing import QUEUES, Priority
from config.workers import Profile
from shared.dead_letters import KeepingConsumer
from shared.logging_utils import get_logger

log = get_logger(__name__)

# How long Redis is asked for what it has not: kombu's own second, in which a low queue that has room again would not be
# asked for. So less while one is left out: tasks of 0.1 s lose a tenth of their rate by that, not nine tenths.
_ASK_SECONDS, _ASK_AGAIN_SECONDS = 1, 0.01


def limits(profile: Profile, queues: Iterable[str], slots: int) -> dict[str, int]:
    """How many messages of each low queue may be in hand, in a process that consumes these queues with so many slots.

    What the registry gives its worker of the slots, in proportion: one low queue alone has what it would have in a
    process of its own, and one whose worker has queues of other classes, its class's part of that. All of them together
    leave at least one slot. Nothing is limited where no other queue is, nor where there are too few slots for one of
    each low queue and one more.
    """
    consumed = set(queues)
    low = {queue for queue in consumed if QUEUES.get(queue) is Priority.LOW}
    if not low or low == consumed:
        return {}
    if slots <= len(low):
        log.warning("no_slot_for_urgent_work", slots=slots, needed=len(low) + 1, low=sorted(low))
        return {}
    rows = [worker for worker in profile.workers if consumed & set(worker.queues)]
    room = sum(worker.pool.slots for worker in rows)
    found = {
        queue: max(1, slots * worker.pool.slots // room // len({QUEUES[one] for one in worker.queues}))
        for worker in rows
        for queue in worker.queues
        if queue in low
    }
    return found if sum(found.values()) < slots else {queue: (slots - 1) // len(low) for queue in found}


class InHand:
    """The messages of limited queues that this process has. Used by the thread of the consumer alone."""

    def __init__(self, most: Mapping[str, int]) -> None:
        self.most = most
        self._taken: dict[str, list[Any]] = {queue: [] for queue in most}

    def take(self, request: Any) -> None:
        """A task goes to the pool. One that waits for its time on Redis does so when that has come."""
        queue = request.delivery_info.get("routing_key")
        if queue in self._taken:
            self._forget_ended(queue)
            self._taken[queue].append(request)

    def forget_unbegun(self) -> None:
        """The broker is lost, and with it what the pool has not begun."""
        for queue, taken in self._taken.items():
            self._taken[queue] = [request for request in taken if request.time_start is not None]

    def count(self, queue: str) -> int:
        """How many of that queue, which is a limited one."""
        self._forget_ended(queue)
        return len(self._taken[queue])

    def full(self, queue: str) -> bool:
        """Whether that queue is limited and at its limit."""
        return queue in self.most and self.count(queue) >= self.most[queue]

    def _forget_ended(self, queue: str) -> None:
        self._taken[queue] = [request for request in self._taken[queue] if not request.acknowledged]


class PriorityConsumer(KeepingConsumer):
    """The consumer of every worker process: keeps what it cannot take, and takes what is low with measure."""

    def __init__(self, on_task_request: Callable[[Any], None], *args: Any, **options: Any) -> None:
        def take(request: Any) -> None:
            self.in_hand.take(request)
            self._set_pace()
            on_task_request(request)

        super().__init__(take, *args, **options)
        slots = self.controller.max_concurrency or self.controller.concurrency
        queues = list(self.app.amqp.queues.consume_from)
        self.in_hand = InHand(limits(self.app.profile, queues, slots))
        self._on_redis = self.app.resources.settings.broker_url.reveal().startswith("redis")
        if self.in_hand.most and not self._on_redis:
            self.app.amqp.Consumer = partial(_LimitedConsumer, self)

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Celery's own, with what a Redis broker is asked for."""
        options: dict[str, Any] = {}
        if self.in_hand.most and self._on_redis:
            options["queue_order_strategy"] = _Strategy(self.in_hand, self._set_pace)
        connection = self.app.connection_for_read(heartbeat=heartbeat, transport_options=options)
        connection.ensure_connection = partial(self._ensure, connection.ensure_connection)
        return self.ensure_connected(connection)

    def _ensure(self, ensure: Callable[..., Any], *args: Any, callback: Callable[[], Any], **options: Any) -> Any:
        """kombu's own, which calls back every second: who waits for a broker that is away lives."""
        beat = self.app.resources.heartbeat.beat

        def wait() -> None:
            beat()
            callback()

        return ensure(*args, callback=wait, **options)

    def _set_pace(self) -> None:
        """Say how long Redis is asked the next time, which begins before it is known for which queues."""
        if self._on_redis and self.in_hand.most and self.task_consumer is not None:
            full = any(self.in_hand.full(queue) for queue in self.in_hand.most)
            self.task_consumer.channel.brpop_timeout = _ASK_AGAIN_SECONDS if full else _ASK_SECONDS

    def register_with_event_loop(self, hub: Any) -> None:
        """Celery's own, and a heartbeat for as long as this connection lasts."""
        super().register_with_event_loop(hub)
        heartbeat = self.app.resources.heartbeat
        hub.call_repeatedly(heartbeat.EVERY_SECONDS, heartbeat.beat)
        if self.in_hand.most and not self._on_redis:  # where there is anything that may wait
            hub.on_tick.add(self._consume_what_waited)

    def on_close(self) -> None:
        """Celery's own."""
        super().on_close()
        self.in_hand.forget_unbegun()

    def _consume_what_waited(self) -> None:
        """Consume low queues again, whose messages of an earlier connection this process worked on till now."""
        if self.blueprint.state != RUN or self.task_consumer is None:
            return
        waiting = (queue for queue in self.in_hand.most if not self.task_consumer.consuming_from(queue))
        if any(not self.in_hand.count(queue) for queue in waiting):
            self.task_consumer.consume()


class _LimitedConsumer(Consumer):  # type: ignore[misc] # kombu ships no types
    """kombu's consumer of all queues, with a limit of its own for each low one.

    A consumer's limit is the one that its channel has when it begins: https://www.rabbitmq.com/docs/consumer-prefetch.
    It cannot be changed later but by consuming anew, and to cancel is to read, with messages among what is read.
    So a low queue of which an earlier connection left work here waits until that is done. It is at most a slice.
    """

    def __init__(self, worker: PriorityConsumer, *args: Any, **options: Any) -> None:
        self._worker = worker
        super().__init__(*args, **options)

    def _basic_consume(self, queue: Any, *args: Any, **options: Any) -> Any:
        worker = self._worker
        most = worker.in_hand.most.get(queue.name)
        if most is None or self.consuming_from(queue):
            return super()._basic_consume(queue, *args, **options)
        if worker.in_hand.count(queue.name):
            return None
        self.channel.basic_qos(0, most, False)
        tag = super()._basic_consume(queue, *args, **options)
        # Celery's own where queues have no limit together, as quorum queues have none.
        self.channel.basic_qos(0, 0 if worker.qos_global else worker.initial_prefetch_count, False)
        return tag


@dataclass(frozen=True, slots=True)
class _Strategy:
    """Makes the turn of each channel. `celery inspect stats` has it among what it shows, and must be able to say it."""

    in_hand: InHand
    ask: Callable[[], None]

    def __call__(self) -> "_QueuesWithRoom":
        return _QueuesWithRoom(self.in_hand, self.ask)

    def __json__(self) -> str:
        return "those with room"


class _QueuesWithRoom(round_robin_cycle):  # type: ignore[misc] # kombu ships no types
    """kombu's turn of the queues that Redis is asked for, without those at their limit."""

    def __init__(self, in_hand: InHand, ask: Callable[[], None]) -> None:
        super().__init__()
        self._in_hand, self._ask = in_hand, ask

    def consume(self, n: int) -> list[str]:
        """The first n that have room."""
        self._ask()
        return [queue for queue in self.items[:n] if not self._in_hand.full(queue)]
