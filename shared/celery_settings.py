"""Settings -> Celery's configuration: a pure function, with a reason and a source at each setting.

All names: https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

from typing import Any

from kombu.entity import Exchange, Queue

from config.queue_routing import task_routes
from config.workers import Profile
from shared.config import VISIBILITY_SECONDS, Settings


def celery_settings(profile: Profile, settings: Settings) -> dict[str, Any]:
    """The configuration of the process that holds that profile."""
    return {
        **_messages(),
        **_delivery(),
        **_connections(settings),
        # Classic, durable, a direct exchange of the same name, no arguments: as every publisher declares them.
        # Declared otherwise, the other side fails with 406. (contract section 1)
        "task_queues": [Queue(name, Exchange(name, "direct"), name) for name in profile.queues],
        "task_routes": task_routes(),
        # The work is waiting on HTTP, so threads: a tenth of the memory of processes at the same rate.
        # https://docs.celeryq.dev/en/stable/userguide/concurrency/index.html
        "worker_pool": "threads",
        "worker_concurrency": profile.concurrency,
        # Keeps what it cannot take, instead of logging it whole and dropping it.
        "worker_consumer": "shared.dead_letters:KeepingConsumer",
        # A log handler of ours is there already: shared.logging_utils.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


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


def _connections(settings: Settings) -> dict[str, Any]:
    redis_broker = settings.broker_url.reveal().startswith("redis")
    return {
        "broker_url": settings.broker_url.reveal(),
        "broker_connection_timeout": 4,
        "broker_connection_retry_on_startup": True,
        # For ever: a worker that gives up has to be started by hand after a long outage.
        "broker_connection_max_retries": None,
        # Effects are idempotent, so a task that lost its connection goes on instead of being cut in the middle.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Publishing ends within seconds when the broker is away; the task is then retried as a whole.
        # https://docs.celeryq.dev/en/stable/userguide/calling.html#message-sending-retry
        "task_publish_retry_policy": {
            "max_retries": 2,
            "interval_start": 0.2,
            "interval_step": 0.3,
            "interval_max": 1,
        },
        "broker_transport_options": _redis_options() if redis_broker else _rabbitmq_options(),
    }


def _redis_options() -> dict[str, Any]:
    # https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout
    return {
        "visibility_timeout": VISIBILITY_SECONDS,
        "socket_connect_timeout": 4,
        "socket_timeout": 30,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


def _rabbitmq_options() -> dict[str, Any]:
    # A publish is done when the broker says it has the message: https://www.rabbitmq.com/docs/confirms
    return {"confirm_publish": True}
