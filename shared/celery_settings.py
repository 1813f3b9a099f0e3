"""Settings -> Celery's configuration: a pure function, with a reason and a source at each setting.

All names: https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

from typing import Any

from kombu.entity import Exchange, Queue

from config.queue_routing import task_routes
from config.workers import Pool, Profile
from shared.config import BaseSettings, Settings


def celery_settings(profile: Profile, settings: Settings) -> dict[str, Any]:
    """The configuration of the process that holds that profile."""
    return {
        **_messages(),
        **_delivery(),
        **_connections(settings),
        **_queues(profile, settings),
        "task_routes": task_routes(),
        **pool_settings(profile.pool),
        # A connection to publish for each slot, or one that waits for a silent broker holds up the others.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-pool-limit
        "broker_pool_limit": max(10, profile.pool.slots),
        # Keeps what it cannot take, instead of dropping it, and leaves slots to what is urgent.
        # https://docs.celeryq.dev/en/stable/userguide/extending.html#consumer
        "worker_consumer": "shared.priorities:PriorityConsumer",
        # A log handler of ours is there already: shared.logging_utils.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-hijack-root-logger
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


def platform_queue(name: str, queue_type: str) -> Queue:
    """Durable, a direct exchange of the same name: as every publisher declares it, or the other side fails with 406.

    Classic without arguments (contract section 1). Quorum with its type alone, as Celery's own publishers declare it: a
    delivery limit among the arguments would have to be among everybody's. The broker's is none on RabbitMQ 3 and 20 on
    4, only a message that could not be published again comes near it, and a policy may raise it.
    """
    arguments = {"x-queue-type": "quorum"} if queue_type == "quorum" else None
    return Queue(name, Exchange(name, "direct"), name, queue_arguments=arguments)


def _queues(profile: Profile, settings: Settings) -> dict[str, Any]:
    """One type for all that is declared here, so dead letters, which people still need, are replicated like the rest.

    Celery sees the type, and sets the prefetch per consumer: quorum queues have no global one.
    https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html#using-quorum-queues
    """
    queue_type = _queue_type(settings)
    return {
        "task_queues": [platform_queue(name, queue_type) for name in profile.queues],
        "task_create_missing_queue_type": queue_type,
        "worker_detect_quorum_queues": True,
    }


def pool_settings(pool: Pool) -> dict[str, Any]:
    """The registry's row, or what the environment made of it (`shared/overrides.py`).

    Threads unless it says otherwise, since the work is waiting on HTTP: a tenth of the memory of processes at the same
    rate. https://docs.celeryq.dev/en/stable/userguide/concurrency/index.html
    """
    return {
        "worker_pool": pool.kind,
        "worker_concurrency": pool.concurrency,
        # Each slot takes one message: none waits behind a long one while another worker is idle.
        # https://docs.celeryq.dev/en/stable/userguide/optimizing.html#prefetch-limits
        "worker_prefetch_multiplier": pool.prefetch,
        # Prefork's alone: https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits
        "task_soft_time_limit": pool.soft_limit,
        "task_time_limit": pool.hard_limit,
        "worker_max_tasks_per_child": pool.max_tasks_per_child,
        "worker_max_memory_per_child": pool.max_memory_per_child,
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-autoscaler
        "worker_autoscaler": "shared.autoscaler:Autoscaler",
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
        # Times in messages mean the same on every machine.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#enable-utc
        "enable_utc": True,
        "timezone": "UTC",
        # Nobody waits for results, which go to the log and to events: the fan-in keeps its own, and needs no backend.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-ignore-result
        "task_ignore_result": True,
    }


def _delivery() -> dict[str, Any]:
    return {
        # A message is acknowledged when its work is done, so that a dead worker's is done by another.
        # https://docs.celeryq.dev/en/stable/faq.html#faq-acks-late-vs-retry
        "task_acks_late": True,
        # How often that may happen to one piece of work, its lease counts: MAX_DELIVERIES.
        "task_reject_on_worker_lost": True,
        # Nor is a message whose process was killed at its hard limit: it counts as one that lost its worker.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-acks-on-timeout
        "task_acks_on_timeout": False,
    }


def _connections(settings: BaseSettings) -> dict[str, Any]:
    return {
        "broker_url": settings.broker_url.reveal(),
        # An address that swallows packets is given up before anybody takes the worker for hung.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-timeout
        "broker_connection_timeout": 4,
        # Half-open connections are noticed by either side within two of these; RabbitMQ's own proposal is a minute.
        # https://www.rabbitmq.com/docs/heartbeats
        "broker_heartbeat": 60,
        # A worker may start before its broker, and outlive it.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-retry-on-startup
        "broker_connection_retry_on_startup": True,
        # For ever: a worker that gives up has to be started by hand after a long outage.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-max-retries
        "broker_connection_max_retries": None,
        # Effects are idempotent, so a task that lost its connection goes on instead of being cut in the middle.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-cancel-long-running-tasks-on-connection-loss
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
        # The loop waits for a frozen Redis in its own thread, and its next look at the socket is not before this.
        "socket_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


def _rabbitmq_options() -> dict[str, Any]:
    # A publish is done when the broker says it has the message: https://www.rabbitmq.com/docs/confirms
    return {"confirm_publish": True}
