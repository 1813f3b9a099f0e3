"""The work on stock Celery: a chord of the files' tasks with the fan-in as its body.

- Late acknowledgement and one reserved message for each slot, for tasks that may be repeated:
  https://docs.celeryq.dev/en/stable/userguide/optimizing.html#reserve-one-task-at-a-time
- A pool of broker connections as large as there are threads that publish:
  https://docs.celeryq.dev/en/stable/userguide/optimizing.html#broker-connection-pools
- Chords, with results in Redis, and immutable signatures where no result is handed on:
  https://docs.celeryq.dev/en/stable/userguide/canvas.html#chords
- Automatic retries with growing waits:
  https://docs.celeryq.dev/en/stable/userguide/tasks.html#automatic-retry-for-known-exceptions
- The visibility timeout, after which a Redis broker delivers again what nobody acknowledged (an hour by default):
  https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout
- With a low one, how often that is looked for (about every 100 s by default):
  https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.transport.redis.html
"""

from functools import cache

import httpx
from celery import Celery, chord
from job import (
    BROKER_URL,
    CONCURRENCY,
    DONE,
    HTTP_TIMEOUT_SECONDS,
    LIMIT_SECONDS,
    QUEUE,
    RETRIES,
    SERVER_URL,
    STEPS,
    STORE_URL,
    file_body,
    job_body,
)

app = Celery("peers", broker=BROKER_URL, backend=STORE_URL)
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_pool_limit=CONCURRENCY,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)
if LIMIT_SECONDS and BROKER_URL.startswith("redis"):
    app.conf.broker_transport_options = {
        "visibility_timeout": LIMIT_SECONDS,
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
    }

RETRIED = {"autoretry_for": (httpx.HTTPError,), "retry_backoff": True, "max_retries": RETRIES}


@cache
def http() -> httpx.Client:
    """The process's own: made after the fork."""
    return httpx.Client(base_url=SERVER_URL, timeout=HTTP_TIMEOUT_SECONDS)


@app.task(**RETRIED)
def process_file(job: str, file: int) -> int:
    for path in STEPS:
        http().post(path, json=file_body(job, file)).raise_for_status()
    return file


@app.task(ignore_result=True, **RETRIED)
def finish(job: str) -> None:
    http().post(DONE, json=job_body(job)).raise_for_status()


@app.task(ignore_result=True)
def start(job: str, files: int) -> None:
    chord((process_file.si(job, file) for file in range(files)), finish.si(job)).delay()


def send(job: str, files: int) -> None:
    start.delay(job, files)
