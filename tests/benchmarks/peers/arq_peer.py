"""The work on arq: a job with an id of its own for each file, and a set in Redis whose last member starts the fan-in.

- Jobs may run more than once, and are removed when they have ended; what they do should be repeatable ("pessimistic
  execution"): https://arq-docs.helpmanual.io/
- Jobs of one id are there once: https://arq-docs.helpmanual.io/
- Clients that live as long as the worker, in its context: https://arq-docs.helpmanual.io/
- What a dead worker had is taken again ten seconds after `job_timeout` (300 s by default):
  https://arq-docs.helpmanual.io/

`poll_delay` is 0.02 s. With its default of 0.5 s a worker begins at most `max_jobs` every half second: 32 a second.
"""

from typing import Any, ClassVar

import httpx
from arq import Retry, create_pool
from arq.connections import ArqRedis, RedisSettings
from job import (
    BROKER_URL,
    CONCURRENCY,
    DONE,
    HTTP_TIMEOUT_SECONDS,
    LIMIT_SECONDS,
    RETRIES,
    SERVER_URL,
    STEPS,
    file_body,
    job_body,
)

POOL: dict[str, ArqRedis] = {}


async def post(ctx: dict[str, Any], path: str, body: dict[str, object]) -> None:
    try:
        (await ctx["http"].post(path, json=body)).raise_for_status()
    except httpx.HTTPError as error:
        raise Retry(defer=ctx["job_try"]) from error


async def process_file(ctx: dict[str, Any], job: str, file: int, files: int) -> None:
    for path in STEPS:
        await post(ctx, path, file_body(job, file))
    async with ctx["redis"].pipeline(transaction=True) as pipe:
        pipe.sadd(f"ended:{job}", file)
        pipe.expire(f"ended:{job}", 3600)
        pipe.scard(f"ended:{job}")
        *_, ended = await pipe.execute()
    if ended == files:
        await ctx["redis"].enqueue_job("finish", job, _job_id=f"finish:{job}")


async def finish(ctx: dict[str, Any], job: str) -> None:
    await post(ctx, DONE, job_body(job))


async def start(ctx: dict[str, Any], job: str, files: int) -> None:
    for file in range(files):
        await ctx["redis"].enqueue_job("process_file", job, file, files, _job_id=f"{job}:{file}")


async def open_client(ctx: dict[str, Any]) -> None:
    ctx["http"] = httpx.AsyncClient(base_url=SERVER_URL, timeout=HTTP_TIMEOUT_SECONDS)


async def close_client(ctx: dict[str, Any]) -> None:
    await ctx["http"].aclose()


class WorkerSettings:
    """What the command `arq` reads."""

    functions: ClassVar = [start, process_file, finish]
    redis_settings = RedisSettings.from_dsn(BROKER_URL)
    on_startup = open_client
    on_shutdown = close_client
    max_jobs = CONCURRENCY
    max_tries = RETRIES
    poll_delay = 0.02
    job_timeout = LIMIT_SECONDS or 300


async def begin() -> None:
    POOL["arq"] = await create_pool(RedisSettings.from_dsn(BROKER_URL))


async def send(job: str, files: int) -> None:
    await POOL["arq"].enqueue_job("start", job, files, _job_id=job)
