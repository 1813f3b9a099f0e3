"""When an entry is due, as its state says, without a store: crontabs, nights with a shift of the clocks, names."""

from datetime import UTC, datetime, timedelta

import pytest

from config.beat_schedule import ENTRIES
from config.queue_routing import ROUTES
from shared.config import BaseSettings
from shared.schedule_store import ScheduleError, StoredEntry, times
from shared.scheduler import ScheduleApp

AUTUMN = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin; at 1:00 UTC it is 2 o'clock again
SPRING = datetime(2026, 3, 28, 23, tzinfo=UTC)  # likewise; at 1:00 UTC it is 3 o'clock


def entry(schedule: float | str, since: datetime, zone: str = "Europe/Berlin") -> StoredEntry:
    said = {"CELERY_BROKER_URL": "redis://broker.invalid/0", "CACHE_REDIS_HOST": "state.invalid"}
    app = ScheduleApp(BaseSettings.load(said | {"SCHEDULE_TIMEZONE": zone}))
    return StoredEntry(app=app, name="some", task="process_log_history", schedule=times(schedule), since=since)


def runs(made: StoredEntry, hours: float) -> list[str]:
    """When it runs in these hours, by its own clock, where each run is half a second late."""
    found, end = [], made.since + timedelta(hours=hours)
    while (due := made.due_at) < end:
        found.append(due.astimezone(made.app.timezone).strftime("%d %H:%M"))
        made.last_run_at = due + timedelta(seconds=0.5)
    return found


def test_every_row_of_the_file_has_a_route_a_schedule_and_a_name_of_its_own() -> None:
    assert {row.task for row in ENTRIES} <= {route.task for route in ROUTES}
    assert all(times(row.schedule) for row in ENTRIES)
    assert len({row.name for row in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize(("queue_type", "arguments"), [("classic", None), ("quorum", {"x-queue-type": "quorum"})])
def test_queues_are_declared_as_the_workers_declare_them(queue_type: str, arguments: dict[str, str] | None) -> None:
    said = {"CELERY_BROKER_URL": "amqp://broker.invalid//", "CACHE_REDIS_HOST": "state.invalid"}
    app = ScheduleApp(BaseSettings.load(said | {"CELERY_QUEUE_TYPE": queue_type}))
    for task in (route.task for route in ROUTES):
        queue = app.amqp.router.route({}, task)["queue"]
        assert (queue.exchange.name, queue.exchange.type, queue.routing_key) == (queue.name, "direct", queue.name)
        assert (queue.durable, queue.queue_arguments) == (True, arguments)


def test_a_crontab_is_read_by_the_schedule_s_clock() -> None:
    noon = datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert entry("0 13 * * *", noon).due_at == datetime(2026, 7, 1, 11, tzinfo=UTC)
    assert entry("0 13 * * *", noon, "UTC").due_at == datetime(2026, 7, 1, 13, tzinfo=UTC)


@pytest.mark.parametrize(("night", "found"), [(AUTUMN, ["25 02:30", "26 02:30"]), (SPRING, ["29 03:30", "30 02:30"])])
def test_a_daily_run_is_one_on_days_of_23_and_25_hours(night: datetime, found: list[str]) -> None:
    assert runs(entry("30 2 * * *", night), 49) == found


@pytest.mark.parametrize("cron", ["*/15 * * * *", "30 2 * * *", "* * * * *"])
@pytest.mark.parametrize("night", [AUTUMN, SPRING])
def test_a_run_at_any_moment_of_such_a_night_is_not_due_again(cron: str, night: datetime) -> None:
    """Late ones too: from within the second of two equal hours, Celery counts the next from within the first."""
    made = entry(cron, night)
    for minute in range(0, 300, 7):
        made.last_run_at = night + timedelta(minutes=minute, seconds=3)
        assert made.due_at > made.last_run_at


def test_an_interval_is_as_long_on_such_nights() -> None:
    assert entry(3_600, AUTUMN + timedelta(hours=2.5)).due_at == AUTUMN + timedelta(hours=3.5)


def test_a_run_is_named_by_its_entry_and_its_time() -> None:
    one, same, later = entry("0 3 * * *", AUTUMN), entry("0 3 * * *", AUTUMN), entry("0 4 * * *", AUTUMN)
    assert one.task_id == same.task_id != later.task_id
    same.name = "other"
    assert one.task_id != same.task_id


def test_what_was_due_before_a_change_is_not_made_up_for() -> None:
    made = entry("0 3 * * *", AUTUMN)
    made.last_run_at = AUTUMN - timedelta(days=30)
    assert made.due_at == datetime(2026, 10, 25, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("* * * *", "five fields.*it has 4"),
        ("61 * * * *", "five fields.*Invalid end range: 61 > 59"),
        ("* * * * funday", "five fields.*Invalid weekday literal 'funday'"),
        ("0 0 31 2 *", "five fields"),
        ("*/0 * * * *", "five fields"),
        ("-1 * * * *", "five fields.*negative"),
        ("every hour", "five fields.*it has 2"),
        (0.5, "1 to 31622400 seconds; 0.5 is not"),
        (float("nan"), "seconds; nan is not"),
        (1e9, "seconds; 1e.09 is not"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_is(text: float | str, said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        times(text)
