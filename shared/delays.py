"""Messages for later, which hold nobody's slot meanwhile."""

from typing import Any

from celery.canvas import Signature
from kombu.entity import Exchange, Queue

from shared.config import Settings

# Waits are rounded up to one of these, so that there are few queues.
_STEPS = (1, 2, 3, 5, 8, 12, 20, 30, 45, 60, 120, 300, 600, 1_800, 3_600)
_KEPT_SECONDS = 600  # how long an idle delay queue stays


def send_later(signature: Signature, queue: str, seconds: float, settings: Settings) -> None:
    """Publish a task that is delivered to that queue after about `seconds`. Returns when the broker has it.

    RabbitMQ: it waits in a queue for that, `workers_delay_{queue}_{seconds}[_quorum]`, which hands it on.
    A Celery countdown waits in a worker instead, unacknowledged: on quorum queues it holds a slot, and each of them is
    redelivered when that worker ends. Losing options: Celery's native delayed delivery (topic exchanges, which
    publishers do not declare); one delay queue with a time for each message (the first holds up the rest).
    On a Redis broker the countdown stays: a waiting message raises the prefetch count there, and holds no slot. But it
    must not wait as long as the broker takes for a sign of death, or each wait doubles the message.

    Raises whatever a publish raises; the message may have been sent all the same.
    """
    if settings.broker_url.reveal().startswith("redis"):
        signature.apply_async(countdown=min(seconds, settings.visibility / 2))
        return
    signature.apply_async(queue=_delay_queue(queue, _rounded(seconds), settings.queue_type))


def _rounded(seconds: float) -> int:
    """Up to the next step, and beyond the last of them up to whole ones of that."""
    longest = _STEPS[-1]
    return next((step for step in _STEPS if step >= seconds), -int(-seconds // longest) * longest)


def _delay_queue(target: str, seconds: int, queue_type: str) -> Queue:
    """https://www.rabbitmq.com/docs/dlx, https://www.rabbitmq.com/docs/ttl."""
    arguments: dict[str, Any] = {
        "x-message-ttl": seconds * 1_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": target,
        # Counted from the last declaration, and every publish declares it: never with a message inside.
        "x-expires": (seconds + _KEPT_SECONDS) * 1_000,
        "x-queue-type": queue_type,
    }
    if queue_type == "quorum":
        # Or a message is lost where its target cannot take it at that moment.
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    # The type is in the name: those of the other type stay a while after it was changed.
    name = f"workers_delay_{target}_{seconds}" + ("_quorum" if queue_type == "quorum" else "")
    return Queue(name, Exchange(""), name, queue_arguments=arguments)
