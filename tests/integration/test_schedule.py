"""The schedule in a real store: what follows the file, what operators say, and who prevails."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from click.testing import CliRunner
from redbeat.schedulers import get_redis

from config.beat_schedule import ENTRIES, Entry
from shared.commands.schedule import cli
from shared.config import BaseSettings
from shared.schedule_store import ScheduleError, StoredEntry, entries, follow
from shared.scheduler import ScheduleApp

TASK = "process_log_history"
Say = Callable[..., str]


@pytest.fixture
def environment(redis_url: str, redis_connection: "redis.Redis") -> dict[str, str]:
    options: dict[str, Any] = redis_connection.connection_pool.connection_kwargs
    return {
        "CELERY_BROKER_URL": redis_url,
        "CACHE_REDIS_HOST": options["host"],
        "CACHE_REDIS_PORT": str(options["port"]),
        "CACHE_REDIS_DB": str(options["db"]),
        "CACHE_REDIS_PASSWORD": options.get("password") or "",
        "SCHEDULE_TIMEZONE": "Europe/Berlin",
    }


@pytest.fixture
def app(environment: dict[str, str]) -> Iterator[Celery]:
    with ScheduleApp(BaseSettings.load(environment)) as made:
        yield made
        get_redis(made).close()


@pytest.fixture
def say(environment: dict[str, str]) -> Say:
    """What a command of `workers schedule` prints, or why it is refused."""

    def run(*arguments: str) -> str:
        ran = CliRunner().invoke(cli, list(arguments), env=environment)
        return str(ran.exception) if isinstance(ran.exception, ScheduleError) else ran.output

    return run


def row(name: str, schedule: float | str = 60, **more: Any) -> Entry:
    return Entry(name=name, task=TASK, schedule=schedule, **more)


def test_what_nobody_touched_follows_the_file(app: Celery) -> None:
    follow(app, [row("kept"), row("changed"), row("dropped")])
    before = entries(app)
    assert before["kept"].advance()
    follow(app, [row("kept"), row("changed", "0 3 * * *", args=(1,), kwargs={"a": 2}), row("added")])
    after = entries(app)
    assert set(after) == {"kept", "changed", "added"}
    assert (after["kept"].since, after["kept"].last_run_at) == (before["kept"].since, before["kept"].last_run_at)
    assert (after["changed"].args, after["changed"].kwargs) == ([1], {"a": 2})
    assert after["changed"].since > before["changed"].since
    assert "celery.backend_cleanup" not in after


def test_arguments_are_kept_as_they_are_and_harm_no_other_entry(app: Celery, say: Say) -> None:
    """redbeat's own decoder would make times of some of them, or fail, at every look."""
    odd = {"a": {"__type__": "datetime"}, "b": [{"__type__": "interval"}]}
    say("set", "odd", "--task", TASK, "--every", "60", "--kwargs", json.dumps(odd), "--args", json.dumps([odd]))
    found = entries(app)["odd"]
    assert (found.args, found.kwargs) == ([odd], odd)
    assert "odd" in say("list")


def test_what_operators_changed_stays_theirs(app: Celery, say: Say) -> None:
    follow(app)
    say("disable", "process-log-history")
    say("set", "process-notification-buffer", "--every", "7")
    say("set", "mine", "--task", TASK, "--cron", "0 3 * * *")
    follow(app)
    follow(app, [])  # a file without any row
    assert set(entries(app)) == {"process-notification-buffer", "mine"}
    follow(app)
    found = entries(app)
    assert (found["process-notification-buffer"].schedule.seconds, found["mine"].by_operator) == (7, True)
    assert found["process-log-history"].enabled  # it came anew
    say("disable", "process-log-history")
    follow(app)
    assert not entries(app)["process-log-history"].enabled


def test_an_entry_without_a_route_stops_the_start_and_leaves_all_as_it_was(app: Celery) -> None:
    follow(app, [row("kept")])
    with pytest.raises(ScheduleError, match=r"task 'process_logs' of the entry wrong has no route; did you mean pro"):
        follow(app, [row("kept"), Entry(name="wrong", task="process_logs", schedule=60)])
    assert set(entries(app)) == {"kept"}


def test_who_changed_an_entry_first_prevails(app: Celery) -> None:
    """A frozen scheduler that goes on changes nothing, nor does one that has read what an operator changed since."""
    follow(app, [row("tick")])
    first, second = entries(app)["tick"], entries(app)["tick"]
    assert second.advance()
    assert not first.advance()
    assert entries(app)["tick"].last_run_at == second.last_run_at
    sending, edited, stale = (entries(app)["tick"] for _ in range(3))
    edited.enabled = False
    assert edited.save()
    assert not sending.advance()
    assert not stale.save()
    assert not entries(app)["tick"].enabled
    edited.delete()
    assert not stale.save()
    assert entries(app) == {}


def test_what_is_disabled_is_no_work_for_the_scheduler_and_is_not_made_up_for(app: Celery, say: Say) -> None:
    follow(app, [row("tick", 1)])
    say("disable", "tick")
    assert get_redis(app).zscore("workers:beat::schedule", "workers:beat:tick") == -1
    disabled = entries(app)["tick"]
    assert disabled.is_due()[0] is False
    assert "tick is due at 20" in say("enable", "tick")
    assert entries(app)["tick"].since > disabled.since


def test_what_is_set_by_halves_keeps_the_rest(app: Celery, say: Say) -> None:
    say("set", "mine", "--task", "logs_consumer", "--every", "5", "--args", '["a"]', "--kwargs", '{"b": null}')
    say("set", "mine", "--cron", "0 3 * * sun")
    found = entries(app)["mine"]
    assert (found.task, found.args, found.kwargs) == ("logs_consumer", ["a"], {"b": None})
    say("set", "mine", "--task", TASK)
    found = entries(app)["mine"]
    assert (found.task, found.args, found.kwargs) == (TASK, [], {})
    assert "0 3 * * sun" in say("list")
    assert say("remove", "mine") == "mine is gone\n"
    say("set", "process-log-history", "--task", TASK, "--every", "5")
    say("remove", "process-log-history")
    back = entries(app)["process-log-history"]
    assert (back.by_operator, back.schedule.seconds) == (False, ENTRIES[2].schedule)


def test_a_pipeline_is_set_with_the_contract_s_arguments(app: Celery, say: Say) -> None:
    said = say("set", "nightly", "--pipeline", "org", "some-id", "--cron", "30 2 * * *")
    assert said.startswith("nightly is due at 20")
    assert said.endswith(("+01:00\n", "+02:00\n"))
    found = entries(app)["nightly"]
    assert found.task == "scheduler.tasks.execute_pipeline_task"
    assert found.args == ["", "org", "", "", "some-id", False, "nightly"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("enable", "proces-log"), "there is no entry 'proces-log'; did you mean process-log-history?"),
        (("remove", "process-log-history"), "which would bring it back: disable it instead"),
        (("set", "x", "--task", "proces_log_history", "--every", "5"), "has no route; did you mean process_log_histor"),
        (("set", "x", "--task", TASK, "--cron", "0 3 * *"), "a crontab is five fields"),
        (("set", "x", "--task", TASK, "--every", "0"), "an interval is 1 to 31622400 seconds; 0 is not"),
        (("set", "x", "--task", TASK, "--every", "5", "--cron", "* * * * *"), "--every or --cron, not both"),
        (("set", "x", "--task", TASK), "x is not there yet: say --every or --cron"),
        (("set", "x", "--every", "5"), "x is not there yet: say --task or --pipeline"),
        (("set", "x", "--pipeline", "o", "p", "--task", TASK, "--every", "5"), "arguments of its own"),
        (("set", "x", "--task", TASK, "--every", "5", "--args", "{}"), 'JSON of the kind of ["a", 1]'),
        (("set", "x", "--task", TASK, "--every", "5", "--kwargs", "a"), 'JSON of the kind of {"a": 1}'),
        (("set", "x", "--task", TASK, "--every", "5", "--args", "[NaN]"), "'[NaN]' is not"),
        (("set", " padded ", "--task", TASK, "--every", "5"), "' padded ' cannot be a name"),
        (("set", "x" * 101, "--task", TASK, "--every", "5"), "cannot be a name: that is up to 100 letters"),
        (("set", ":lock", "--task", TASK, "--every", "5"), "':lock' cannot be a name"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(app: Celery, say: Say, arguments: tuple[str, ...], said: str) -> None:
    follow(app)
    assert said in say(*arguments)
    assert set(entries(app)) == {entry.name for entry in ENTRIES}


def test_before_beat_has_started_there_is_nothing(say: Say) -> None:
    assert "nothing is there before beat has started once" in say("enable", "process-log-history")
    assert len(say("list").splitlines()) == 1


def test_an_entry_that_is_gone_is_said_to_be(app: Celery) -> None:
    with pytest.raises(KeyError, match="workers:beat:none"):
        StoredEntry.from_key("workers:beat:none", app)
