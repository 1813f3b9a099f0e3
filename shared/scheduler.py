"""The scheduler: sends each entry of the schedule at its time, once, whoever dies and however many of it there are.

It stands on celery-redbeat, whose lock lets one scheduler send while others wait. Ours differs in this: a run is sent
first and written down then, since the other way round a death in between loses it; each message has the id of its
entry and time, by which workers do it once (`shared/claims.py`); and what operators change outlives a restart.
"""

import shared.without_django  # noqa: F401, I001 # first: it must come before Celery

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.beat import SchedulingError
from celery.utils.log import get_logger
from redbeat.schedulers import REDBEAT_REDIS_KEY, RedBeatScheduler
from redis.exceptions import LockError

from shared.celery_settings import PUBLISHING_SECONDS, publisher_settings, publishing_options
from shared.config import BaseSettings
from shared.redis_connection import redis_client
from shared.schedule_store import StoredEntry

logger = get_logger("celery.beat")  # the name that operators know

_LONGEST_SLEEP = 5.0  # what operators change at runtime is heard of within
_AGAIN_SECONDS = 2.0


class ScheduleApp(Celery):  # type: ignore[misc] # Celery ships no types
    """The application of the scheduler, and of who looks at its schedule."""

    def __init__(self, settings: BaseSettings) -> None:
        # No fixups: Celery's own would import Django wherever DJANGO_SETTINGS_MODULE is set.
        super().__init__("beat", fixups=[])
        self._publishing, self._broker = publishing_options(settings), settings.broker_url.reveal()
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
        setattr(self, REDBEAT_REDIS_KEY, redis_client(settings))

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Celery's own, but a publish never hangs on it, and the broker is that of the settings."""
        return super().connection_for_write(url or self._broker, **self._publishing | options)


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
        seconds: float = super().tick(*args, **kwargs)
        return seconds

    def maybe_due(self, entry: StoredEntry, **_: Any) -> float:
        """Send an entry if it is due; seconds until it is again.

        What the broker does not take stays due. If many runs were missed, one is sent for them all.
        """
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
