"""The one place that makes clients of Redis: bounded waits, checked after idling, found again after a failover."""

from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from shared.config import BaseSettings

_WAIT_SECONDS = 5
# A failover takes sentinels a few seconds more than they wait for the old primary; three tries bridge its last second.
_TRIES_AGAIN = 2


def broker_client(settings: BaseSettings) -> redis.Redis:
    """A client of a Redis broker, to look at it; messages go through Celery."""
    # Once more, for a connection that was cut while it was idle.
    options: dict[str, Any] = {"socket_connect_timeout": _WAIT_SECONDS, "socket_timeout": _WAIT_SECONDS}
    options |= {"decode_responses": True, "retry": Retry(ExponentialBackoff(cap=1, base=0.1), 1)}
    client: redis.Redis = redis.Redis.from_url(settings.broker_url.reveal(), **options)
    return client


def redis_client(settings: BaseSettings) -> redis.Redis:
    """A client of the state store (`CACHE_REDIS_*`), with a pool of its own. No connection is made.

    With CACHE_REDIS_SENTINELS each new connection asks them where the primary is now, and one that finds itself at a
    demoted primary is closed. Two more tries on fresh connections; every wait on the network is at most five seconds.
    """
    options: dict[str, Any] = {
        "db": settings.redis_db,
        "username": settings.redis_username or None,
        "password": settings.redis_password.reveal() or None,
        "retry": Retry(ExponentialBackoff(cap=1, base=0.1), _TRIES_AGAIN),
        "decode_responses": True,
        "socket_connect_timeout": _WAIT_SECONDS,
        "socket_timeout": _WAIT_SECONDS,
        "health_check_interval": 30,
    }
    if not settings.redis_sentinels:
        client: redis.Redis = redis.Redis(host=settings.redis_host, port=settings.redis_port, **options)
        return client
    # Sentinels have no database and, by default, no password; a dead one must not cost the time of the others.
    bounded = {"socket_connect_timeout": 1, "socket_timeout": 1}
    sentinel = Sentinel(settings.redis_sentinels, sentinel_kwargs=bounded)  # type: ignore[no-untyped-call]
    primary: redis.Redis = sentinel.master_for(settings.redis_sentinel_master, **options)  # type: ignore[no-untyped-call]
    return primary
