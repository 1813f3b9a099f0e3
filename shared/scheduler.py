"""The scheduler: sends each entry of the schedule at its time, once, whoever dies and however many of it there are.

It stands on celery-redbeat, whose lock lets one scheduler send while others wait. Ours differs in this: a run is sent
first and written down then, since the other way round a death in between loses it; each message has the id of its
entry and time, by which workers do it once (`shared/claims.py`); and what operators change outlives a restart.
"""

import shared.without_extras  # noqa: F401, I001 # first: it must come before Celery

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from celery.beat import SchedulingError
from celery.utils.log import get_logger
from redbeat.schedulers import REDBEAT_REDIS_KEY, RedBeatScheduler, get_redis
from redis.exceptions import LockError
from redis.lock import Lock

from config.beat_schedule import TICK_KEY
from shared.application import Application
from shared.celery_settings import PUBLISHING_SECONDS, publisher_settings, publishing_options
from shared.config import BaseSettings
from shared.heartbeat import Heartbeat
from shared.redis_connection import redis_client
from shared.schedule_store import StoredEntry

logger = get_logger("celery.beat")  # the name that operators know

_LONGEST_SLEEP = 5.0  # what operators change at runtime is heard of within
_AGAIN_SECONDS = 2.0


class ScheduleApp(Application):
    """The application of the scheduler, and of who looks at its schedule.

    Attributes:
        heartbeat: of the scheduler's loop, which goes round while it waits for the lock or for the broker, too.
        sends: whether this scheduler holds the lock.
    """

    def __init__(self, settings: BaseSettings) -> None:
        super().__init__("beat", settings.broker_url.reveal(), publishing_options(settings))
        self.conf.update(
            publisher_settings(settings),
            # One for all: redbeat's encoder would drop a crontab's own.
            timezone=settings.schedule_timezone,
            # Or Celery adds an entry of its own, for a result backend that we have not.
            result_expires=None,
            worker_redirect_stdouts=False,  # beat's too, whatever the name says
            beat_scheduler="shared.scheduler:Scheduler",
            beat_max_loop_interval=min(_LONGEST_SLEEP, settings.lease / 3),
            redbeat_key_prefix="workers:beat:",
            # Longer than the longest publish, or a broker outage would cost the lock.
            redbeat_lock_timeout=int(settings.lease) + PUBLISHING_SECONDS,
            # For the start line alone: the client is ours.
            redbeat_redis_url=f"redis://{settings.redis_host}:{settings.redis_port}/{settings.redis_db}",
            redbeat_redis_options={},
        )
        self.heartbeat, self.sends = Heartbeat(), False
        client = redis_client(settings)
        # By which redbeat makes its lock.
        client.lock = partial(client.lock, lock_class=partial(_Lock, self.heartbeat))  # type: ignore[method-assign]
        setattr(self, REDBEAT_REDIS_KEY, client)


class _Lock(Lock):
    """One that waits, and lives."""

    def __init__(self, heartbeat: Heartbeat, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._heartbeat = heartbeat

    def do_acquire(self, token: str) -> bool:
        """The library's, of which every try is a sign of life."""
        self._heartbeat.beat()
        return super().do_acquire(token)


class Scheduler(RedBeatScheduler):  # type: ignore[misc] # redbeat ships no types
    """Sends what is due while it holds the lock, and ends with an error once it does not."""

    Entry = StoredEntry
    # Not Celery's connection, which waits for the broker for ever; the pool's publishes end in time.
    _maybe_due_kwargs: dict[str, Any] = {}  # noqa: RUF012 # redbeat's name

    def setup_schedule(self) -> None:
        """Nothing: the store follows the file before a scheduler is made (`shared/beat.py`)."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; seconds until the next look.

        Raises:
            LockError: the lock was lost, or never had: another scheduler may send now.
            RedisError: the state store cannot be asked.
        """
        if self.lock is None:  # Celery only logs what happens while it is taken
            raise LockError("the lock could not be taken")
        self.app.sends = True
        self.app.heartbeat.beat()
        seconds: float = super().tick(*args, **kwargs)
        get_redis(self.app).set(TICK_KEY, time.time())
        return seconds

    def maybe_due(self, entry: StoredEntry, **_: Any) -> float:
        """Send an entry if it is due; seconds until it is again.

        What the broker does not take stays due. If many runs were missed, one is sent for them all.
        """
        self.app.heartbeat.beat()  # a broker that is away costs each of them PUBLISHING_SECONDS
        due, wait = entry.is_due()
        if not due:
            return wait
        self.lock.extend(int(self.lock_timeout))  # entries before this one may have taken long
        entry.options = {"task_id": entry.task_id}
        try:
            with _undisturbed():
                logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
                self.apply_async(entry, advance=False)
                entry.advance()
        except SchedulingError as error:
            logger.error("Scheduler: %s is not sent yet: %s", entry.name, error)  # noqa: TRY400 # not its traceback
            return _AGAIN_SECONDS
        return entry.is_due()[1]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A stop waits for the end of this block: Celery's would come in the middle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
