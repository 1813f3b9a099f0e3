"""The schedule in the state store: what runs when, who said so, when it ran last.

The keys are those of celery-redbeat, under `workers:beat:`. An entry is a hash of two fields: its definition, which
`config/beat_schedule.py` or an operator writes, and its meta, which only the scheduler does, after each run. Either is
written only if nobody else has changed the entry since it was read.
"""

import shared.without_extras  # noqa: F401, I001 # first: it must come before Celery

import difflib
import json
from collections.abc import Iterable, Mapping
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import NAMESPACE_OID, uuid5

from celery import Celery
from celery.schedules import ParseException, crontab, schedule
from redbeat.decoder import RedBeatJSONEncoder, to_timestamp
from redbeat.schedulers import RedBeatSchedulerEntry, get_redis

from config import beat_schedule
from config.queue_routing import ROUTES, route_of

_NEVER = -1  # the place of what is disabled, among times
_SHORTEST, _LONGEST = 1.0, 366 * 86_400.0

# KEYS: the entry, the order of all. ARGV: definition and meta as they were read, the field, its value, the next time.
_WRITE = """
if (redis.call('HGET', KEYS[1], 'definition') or '') ~= ARGV[1] then return 0 end
if ARGV[3] == 'meta' and (redis.call('HGET', KEYS[1], 'meta') or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[5], KEYS[1])
return 1
"""


class ScheduleError(Exception):
    """The schedule cannot be as somebody wants it; the message says what would do."""


class StoredEntry(RedBeatSchedulerEntry):  # type: ignore[misc] # redbeat ships no types
    """An entry as it was read, or one to be written.

    Attributes:
        since: when it was added, changed or enabled; what was due before is not made up for.
        by_operator: whether its definition is an operator's, and no longer the file's.
        read: definition and meta as they were in the store, empty where there was none.
    """

    def __init__(
        self,
        *,
        since: datetime | None = None,
        by_operator: bool = False,
        last_run_at: datetime | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(**fields)
        self.since = since or datetime.now(UTC)
        self.by_operator = by_operator
        self.last_run_at = last_run_at  # Celery has now for never
        self.read = ("", "")

    @classmethod
    def from_key(cls, key: str, app: Celery | None = None) -> Self:
        """The entry as the store has it now.

        Raises:
            KeyError: there is none.
        """
        definition, meta = get_redis(app).hmget(key, "definition", "meta")
        if not definition:
            raise KeyError(key)
        said = cls.decode_definition(definition)
        # Text within text: redbeat's decoder takes some arguments for times.
        said |= {name: json.loads(said[name]) for name in ("args", "kwargs")}
        entry = cls(app=app, **said, **cls.decode_meta(meta))
        entry.read = (definition, meta or "")
        return entry

    @property
    def due_at(self) -> datetime:
        """When it is to run next, in UTC: past if that was missed. For one state of the store always the same."""
        base = max(self.since, self.last_run_at or self.since)
        due = self._next(base)
        while due <= base:  # in the hour that autumn repeats, Celery counts from the first one
            due = self._next(due)
        return due

    def _next(self, base: datetime) -> datetime:
        counted = copy(self.schedule)
        counted.app, counted.nowfun = self.app, lambda: base
        due: datetime = base + counted.remaining_estimate(base)
        return due

    @property
    def score(self) -> int:
        """Its place in the order of all: whole seconds since 1970."""
        return int(to_timestamp(self.due_at)) if self.enabled else _NEVER

    @property
    def task_id(self) -> str:
        """The id of the message that is due: a second one for the same time is the same message."""
        return str(uuid5(NAMESPACE_OID, f"workers:beat:{self.name} {self.due_at.isoformat()}"))

    def is_due(self) -> tuple[bool, float]:
        """Whether it is to run now, and seconds until it is."""
        wait = (self.due_at - datetime.now(UTC)).total_seconds()
        return self.enabled and wait <= 0, max(wait, 0.0)

    def save(self) -> bool:
        """Write the definition. False: somebody else has, since it was read."""
        definition = {
            "name": self.name,
            "task": self.task,
            "args": json.dumps(self.args),
            "kwargs": json.dumps(self.kwargs),
            "schedule": self.schedule,
            "enabled": self.enabled,
            "since": self.since,
            "by_operator": self.by_operator,
        }
        return self._write("definition", definition)

    def advance(self) -> bool:
        """Write that the run which was due is sent. False: another scheduler has, or the entry is another by now.

        In UTC: the decoder of a local time takes the second hour of a night in autumn for the first.
        """
        self.last_run_at = datetime.now(UTC)
        self.total_run_count += 1
        return self._write("meta", {"last_run_at": self.last_run_at, "total_run_count": self.total_run_count})

    def _write(self, field: str, value: Mapping[str, Any]) -> bool:
        text = json.dumps(value, cls=RedBeatJSONEncoder)
        keys = [self.key, self.app.redbeat_conf.schedule_key]
        return bool(get_redis(self.app).eval(_WRITE, 2, *keys, *self.read, field, text, self.score))


def times(text: float | str) -> schedule | crontab:
    """A schedule, from seconds or from the five fields of a crontab.

    Raises:
        ScheduleError: it is neither; with what was expected.
    """
    if not isinstance(text, str):
        if not _SHORTEST <= text <= _LONGEST:
            raise ScheduleError(f"an interval is {_SHORTEST:.0f} to {_LONGEST:.0f} seconds; {text:g} is not")
        return schedule(timedelta(seconds=text))
    fields = text.split()
    try:
        minute, hour, day, month, weekday = fields
        return crontab(minute, hour, weekday, day, month)
    except (ValueError, ParseException) as error:
        why = f": {error}" if len(fields) == 5 else f", it has {len(fields)}"
        raise ScheduleError(
            "a crontab is five fields, minute hour day-of-month month day-of-week (0 is Sunday), such as "
            f"'*/15 8-18 * * mon-fri'; {text!r} is none{why}"
        ) from None


def entries(app: Celery) -> dict[str, StoredEntry]:
    """Every entry by its name, those first that run first."""
    keys = get_redis(app).zrange(app.redbeat_conf.schedule_key, 0, -1)
    found = [StoredEntry.from_key(key, app) for key in keys]
    return {entry.name: entry for entry in found}


def follow(app: Celery, rows: Iterable[beat_schedule.Entry] = beat_schedule.ENTRIES) -> None:
    """Bring the store in line with the file: its rows come, change and go, but for what operators have changed.

    Raises:
        ScheduleError: a task has no route, or a row no schedule.
    """
    known, wanted = entries(app), {row.name: row for row in rows}
    client, listed = get_redis(app), app.redbeat_conf.statics_key
    for name in client.smembers(listed) - wanted.keys():
        if name in known and not known[name].by_operator:
            known.pop(name).delete()
        client.srem(listed, name)
    for name, row in wanted.items():
        had = known.get(name)
        if had is None or not had.by_operator:
            known[name] = from_row(app, row, had)
    for entry in known.values():
        check_task(entry.task, f"of the entry {entry.name}")
    for name in wanted:
        if not known[name].by_operator:
            known[name].save()  # whoever changed it in this moment, prevails
        client.sadd(listed, name)


def from_row(app: Celery, row: beat_schedule.Entry, had: StoredEntry | None = None) -> StoredEntry:
    """The entry that a row of the file says, in the place of another: still disabled if that was."""
    run_every = times(row.schedule)
    entry = StoredEntry(
        app=app, name=row.name, task=row.task, schedule=run_every, args=list(row.args), kwargs=dict(row.kwargs)
    )
    if had is not None:
        entry.read, entry.enabled, entry.last_run_at = had.read, had.enabled, had.last_run_at
        entry.since = had.since if had.schedule == run_every else entry.since
    return entry


def check_task(task: str, whose: str) -> None:
    """Raise ScheduleError, with the nearest names, if the routing table has no such task."""
    if route_of(task) is None:
        near = nearest(task, (route.task for route in ROUTES))
        raise ScheduleError(f"the task {task!r} {whose} has no route; did you mean {near}?")


def nearest(name: str, among: Iterable[str]) -> str:
    """The names most like one that is none, or all."""
    choices = list(among)
    return " or ".join(difflib.get_close_matches(name, choices, n=3) or choices)
