"""Settings -> Celery's configuration: a pure function, with a reason and a source at each setting.

All names: https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

from typing import Any

from kombu.entity import Exchange, Queue

from config.queue_routing import task_routes
from config.workers import Profile
from shared.config import BaseSettings, Settings


def celery_settings(profile: Profile, settings: Settings) -> dict[str, Any]:
    """The configuration of the process that holds that profile."""
    return {
        **_messages(),
        **_delivery(),
        **_connections(settings),
        **_queues(profile, settings),
        "task_routes": task_routes(),
        # The work is waiting on HTTP, so threads: a tenth of the memory of processes at the same rate.
        # https://docs.celeryq.dev/en/stable/userguide/concurrency/index.html
        "worker_pool": "threads",
        "worker_concurrency": profile.concurrency,
        # A connection to publish for each slot, or one that waits for a silent broker holds up the others.
        "broker_pool_limit": max(10, profile.concurrency),
        # Keeps what it cannot take, instead of logging it whole and dropping it.
        "worker_consumer": "shared.dead_letters:KeepingConsumer",
        # A log handler of ours is there already: shared.logging_utils.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def publisher_settings(settings: BaseSettings) -> dict[str, Any]:
    """The configuration of a process that sends tasks by name and runs none: it declares queues as the workers do."""
    return {
        **_messages(),
        **_connections(settings),
        "task_routes": task_routes(),
        "task_create_missing_queue_type": _queue_type(settings),
        "task_default_queue_type": _queue_type(settings),  # it has no queues, so Celery makes one: `celery`
    }


def _queues(profile: Profile, settings: Settings) -> dict[str, Any]:
    """Durable, a direct exchange of the same name: as every publisher declares them, or the other side fails with 406.

    Classic without arguments (contract section 1). Quorum with its type alone, as Celery's own publishers declare it: a
    delivery limit among the arguments would have to be among everybody's. The broker's is none on RabbitMQ 3 and 20 on
    4, only a message that could not be published again comes near it, and a policy may raise it. One type for all that
    is declared here, so dead letters, which people still need, are replicated where the rest is.
    Celery sees the type, and sets the prefetch per consumer: quorum queues have no global one.
    https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html#using-quorum-queues
    """
    kind = _queue_type(settings)
    arguments = {"x-queue-type": kind} if kind == "quorum" else None
    return {
        "task_queues": [
            Queue(name, Exchange(name, "direct"), name, queue_arguments=arguments) for name in profile.queues
        ],
        "task_create_missing_queue_type": kind,
        "worker_detect_quorum_queues": True,
    }


def _queue_type(settings: BaseSettings) -> str:
    return "classic" if _on_redis(settings) else settings.queue_type


def _on_redis(settings: BaseSettings) -> bool:
    return settings.broker_url.reveal().startswith("redis")


def _messages() -> dict[str, Any]:
    return {
        # JSON only: a pickle from a broker is code. https://docs.celeryq.dev/en/stable/userguide/security.html
        "task_serializer": "json",
        "accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        # Nobody waits for results: the fan-in keeps its own, and no result backend is needed.
        "task_ignore_result": True,
    }


def _delivery() -> dict[str, Any]:
    return {
        # A message is acknowledged when its work is done, so that a dead worker's is done by another.
        # https://docs.celeryq.dev/en/stable/faq.html#faq-acks-late-vs-retry
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Each slot takes one message: none waits behind a long one while another worker is idle.
        # https://docs.celeryq.dev/en/stable/userguide/optimizing.html#prefetch-limits
        "worker_prefetch_multiplier": 1,
    }


def _connections(settings: BaseSettings) -> dict[str, Any]:
    return {
        "broker_url": settings.broker_url.reveal(),
        "broker_connection_timeout": 4,
        "broker_connection_retry_on_startup": True,
        # For ever: a worker that gives up has to be started by hand after a long outage.
        "broker_connection_max_retries": None,
        # Effects are idempotent, so a task that lost its connection goes on instead of being cut in the middle.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Celery would raise the prefetch count again from the pool's threads after a reconnect: several then read one
        # socket, and a worker goes deaf with its messages unacknowledged. Seen on RabbitMQ under threads.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-enable-prefetch-count-reduction
        "worker_enable_prefetch_count_reduction": False,
        # Once more on a fresh connection, for one that was cut while it was idle; then the task is retried as a whole.
        # https://docs.celeryq.dev/en/stable/userguide/calling.html#message-sending-retry
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0.2, "interval_step": 0, "interval_max": 0.2},
        "broker_transport_options": _redis_options(settings) if _on_redis(settings) else _rabbitmq_options(),
    }


# Two sends and up to three connects.
PUBLISHING_SECONDS = 10


def publishing_options(settings: BaseSettings) -> dict[str, Any]:
    """What a connection that publishes is made with: no wait is longer than this, so that a publish ends within 10 s.

    A connection that consumes may wait longer: silence is normal there.
    """
    redis = {"socket_connect_timeout": 2, "socket_timeout": 3}
    rabbitmq = {"read_timeout": 3, "write_timeout": 3}
    return {"connect_timeout": 2, "transport_options": redis if _on_redis(settings) else rabbitmq}


def _redis_options(settings: BaseSettings) -> dict[str, Any]:
    # https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout
    return {
        "visibility_timeout": settings.visibility,
        # Looked for every 3 s, by whichever worker has the lock; kombu's own pace is 100 s. And a worker that dies with
        # the lock must not keep the others from looking for five minutes.
        "unacked_restore_interval": 3,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "socket_connect_timeout": 4,
        "socket_timeout": 30,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


def _rabbitmq_options() -> dict[str, Any]:
    # A publish is done when the broker says it has the message: https://www.rabbitmq.com/docs/confirms
    return {"confirm_publish": True}
