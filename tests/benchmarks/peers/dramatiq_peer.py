"""The work on dramatiq: a group of the files' messages with the fan-in as its completion callback.

- Group callbacks, over a rate limiter backend in Redis: https://dramatiq.io/reference.html
- Messages are acknowledged when they were processed and retried with growing waits, by default:
  https://dramatiq.io/guide.html
- Two processes with eight threads each; as many as there are cores, with eight each, is the default:
  https://dramatiq.io/guide.html
- What a worker had that sends no heartbeat any more is queued again in the broker's maintenance, which commands start
  at random: https://dramatiq.io/reference.html (60 s and one command in 1,000 by
  default; with a limit, its seconds and one command in 10, so that maintenance comes within it)
"""

from functools import cache

import dramatiq
import httpx
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend
from job import (
    BROKER_URL,
    DONE,
    HTTP_TIMEOUT_SECONDS,
    LIMIT_SECONDS,
    RETRIES,
    SERVER_URL,
    STEPS,
    STORE_URL,
    file_body,
    job_body,
)

limits = {"heartbeat_timeout": LIMIT_SECONDS * 1000, "maintenance_chance": 100_000} if LIMIT_SECONDS else {}
broker = RedisBroker(url=BROKER_URL, **limits)
broker.add_middleware(GroupCallbacks(RedisBackend(url=STORE_URL)))
dramatiq.set_broker(broker)


@cache
def http() -> httpx.Client:
    """The process's own: made after the fork."""
    return httpx.Client(base_url=SERVER_URL, timeout=HTTP_TIMEOUT_SECONDS)


@dramatiq.actor(max_retries=RETRIES)
def process_file(job: str, file: int) -> None:
    for path in STEPS:
        http().post(path, json=file_body(job, file)).raise_for_status()


@dramatiq.actor(max_retries=RETRIES)
def finish(job: str) -> None:
    http().post(DONE, json=job_body(job)).raise_for_status()


@dramatiq.actor(max_retries=RETRIES)
def start(job: str, files: int) -> None:
    group = dramatiq.group([process_file.message(job, file) for file in range(files)])
    group.add_completion_callback(finish.message(job))
    group.run()


def send(job: str, files: int) -> None:
    start.send(job, files)
