"""The work on taskiq: a task for each file, and a set in Redis whose last member starts the fan-in.

- The broker over Redis streams, the one of taskiq-redis with acknowledgements, which come after the task by default:
  https://taskiq-python.github.io/available-components/brokers.html and
  https://taskiq-python.github.io/guide/cli.html
- Clients that live as long as the worker, in its state:
  https://taskiq-python.github.io/guide/state-and-deps.html
- Retries with growing waits:
  https://taskiq-python.github.io/available-components/middlewares.html
- What nobody acknowledged for `idle_timeout` (ten minutes by default) is claimed by another consumer, when it has read
  something else: https://github.com/taskiq-python/taskiq-redis

The core has no groups; a task that waits for the results of others holds a slot meanwhile, and enough of them hold all.
"""

import asyncio
from typing import Annotated

import httpx
from job import (
    BROKER_URL,
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
from redis.asyncio import Redis
from taskiq import Context, SmartRetryMiddleware, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

limits = {"idle_timeout": LIMIT_SECONDS * 1000, "unacknowledged_lock_timeout": LIMIT_SECONDS} if LIMIT_SECONDS else {}
broker = RedisStreamBroker(BROKER_URL, queue_name=QUEUE, consumer_id="0", **limits).with_middlewares(
    SmartRetryMiddleware(default_retry_count=RETRIES, use_jitter=True, use_delay_exponent=True)
)
Given = Annotated[Context, TaskiqDepends()]


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_clients(state: TaskiqState) -> None:
    state.http = httpx.AsyncClient(base_url=SERVER_URL, timeout=HTTP_TIMEOUT_SECONDS)
    state.redis = Redis.from_url(STORE_URL)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_clients(state: TaskiqState) -> None:
    await state.http.aclose()
    await state.redis.aclose()


@broker.task(retry_on_error=True)
async def process_file(job: str, file: int, files: int, context: Given) -> None:
    for path in STEPS:
        (await context.state.http.post(path, json=file_body(job, file))).raise_for_status()
    async with context.state.redis.pipeline(transaction=True) as pipe:
        pipe.sadd(f"ended:{job}", file)
        pipe.expire(f"ended:{job}", 3600)
        pipe.scard(f"ended:{job}")
        *_, ended = await pipe.execute()
    if ended == files:
        await finish.kiq(job)


@broker.task(retry_on_error=True)
async def finish(job: str, context: Given) -> None:
    (await context.state.http.post(DONE, json=job_body(job))).raise_for_status()


@broker.task(retry_on_error=True)
async def start(job: str, files: int) -> None:
    await asyncio.gather(*(process_file.kiq(job, file, files) for file in range(files)))


async def begin() -> None:
    await broker.startup()


async def send(job: str, files: int) -> None:
    await start.kiq(job, files)
