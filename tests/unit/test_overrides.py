"""What the environment says of a process: over the registry, one worker's word over the fleet's, mistakes together."""

from dataclasses import replace

import pytest

from config.workers import PROFILES, Pool, Retries
from shared.celery_app import options_of
from shared.celery_settings import celery_settings
from shared.overrides import HEALTH_PORT, POOL, RETRIES, commanded, load, overridden
from shared.variables import SettingsError
from tests.fakes import ENVIRONMENT, settings

OTHER = {
    "POOL": ("prefork", "prefork"),
    "CONCURRENCY": ("3", 3),
    "PREFETCH_MULTIPLIER": ("4", 4),
    "SOFT_TIME_LIMIT": ("400", 400),
    "TIME_LIMIT": ("500", 500),
    "MAX_TASKS_PER_CHILD": ("7", 7),
    "MAX_MEMORY_PER_CHILD": ("200000", 200_000),
    "AUTOSCALE": ("6,2", (6, 2)),
}


@pytest.mark.parametrize("prefix", ["SLOW", "CELERY"])
@pytest.mark.parametrize("override", POOL, ids=lambda one: one.setting)
def test_each_setting_of_the_pool_is_heard(override: object, prefix: str) -> None:
    setting, field = getattr(override, "setting", ""), getattr(override, "field", "")
    raw, value = OTHER[setting]
    pool = overridden(PROFILES["slow"], {f"{prefix}_{setting}": raw}).pool
    assert getattr(pool, field) == value


def test_the_workers_own_word_wins_over_the_fleets_and_that_over_the_registry() -> None:
    both = {"CELERY_CONCURRENCY": "5", "CALLBACK_CONCURRENCY": "6"}
    assert overridden(PROFILES["callback"], both).pool.concurrency == 6
    assert overridden(PROFILES["general"], both).pool.concurrency == 5
    assert overridden(PROFILES["general"], {"CELERY_CONCURRENCY": " "}).pool.concurrency == 16


def test_nothing_said_changes_nothing() -> None:
    for profile in PROFILES.values():
        assert overridden(profile, {}) == profile


def test_retries_are_a_workers_own_in_whichever_process_it_is() -> None:
    said = {"CALLBACK_MAX_RETRIES": "0", "CELERY_RETRY_DELAY": "0.5", "GENERAL_RETRY_DELAY": "1"}
    for name in ("all", "fast", "callback"):
        assert overridden(PROFILES[name], said).retries("file_processing_callback") == Retries(most=0, first_wait=0.5)
    assert overridden(PROFILES["all"], said).retries("notifications") == Retries(first_wait=1.0)
    assert {override.field for override in RETRIES} == {"most", "first_wait"}


def test_a_health_port_is_a_processs_own() -> None:
    assert overridden(PROFILES["fast"], {f"FAST_{HEALTH_PORT.setting}": "9000"}).health_port == 9000
    assert overridden(PROFILES["slow"], {"FAST_HEALTH_PORT": "9000"}).health_port == 8086


def test_another_pool_loses_what_it_cannot_do() -> None:
    pool = overridden(PROFILES["heavy"], {"HEAVY_POOL": "threads"}).pool
    assert pool == Pool(kind="threads", concurrency=4)


def test_a_number_of_processes_ends_autoscaling_and_zero_ends_a_limit() -> None:
    pool = overridden(PROFILES["heavy"], {"HEAVY_CONCURRENCY": "3", "HEAVY_MAX_MEMORY_PER_CHILD": "0"}).pool
    assert (pool.concurrency, pool.slots, pool.autoscale, pool.max_memory_per_child) == (3, 3, None, None)


def test_a_processs_own_word_wins_over_the_fleets_in_all_that_it_means() -> None:
    said = {"HEAVY_CONCURRENCY": "4", "CELERY_AUTOSCALE": "9,3", "CELERY_POOL": "threads", "HEAVY_POOL": "prefork"}
    pool = overridden(PROFILES["heavy"], said).pool
    assert (pool.kind, pool.concurrency, pool.autoscale, pool.hard_limit) == ("prefork", 4, None, 300)
    with pytest.raises(SettingsError, match="HEAVY_CONCURRENCY and HEAVY_AUTOSCALE are set: leave one away"):
        overridden(PROFILES["heavy"], {"HEAVY_CONCURRENCY": "4", "HEAVY_AUTOSCALE": "9,3"})
    assert overridden(PROFILES["heavy"], {"HEAVY_AUTOSCALE": "0"}).pool.slots == 2


def test_retries_of_a_profile_are_those_of_its_workers() -> None:
    said = {"SLOW_MAX_RETRIES": "2", "FILE_PROCESSING_MAX_RETRIES": "3"}
    assert overridden(PROFILES["slow"], said).retries("file_processing").most == 2


def test_the_command_line_has_the_last_word() -> None:
    profile = overridden(PROFILES["general"], {"GENERAL_CONCURRENCY": "5"})
    options = options_of(["-c4", "-ldebug", "-Q", "celery, scheduler", "--pool=prefork", "--time-limit", "400"])
    found = commanded(profile, settings(), options)
    assert (found.pool.kind, found.pool.concurrency, found.pool.hard_limit) == ("prefork", 4, 400)
    assert found.queues == ("celery", "scheduler")
    assert commanded(profile, settings(), {}) == profile


def test_a_limit_of_processes_is_refused_for_threads_and_passes_by_where_the_fleet_is_meant() -> None:
    with pytest.raises(
        SettingsError, match="GENERAL_TIME_LIMIT is set, and the pool of threads has no such limit: make it prefork"
    ):
        overridden(PROFILES["general"], {"GENERAL_TIME_LIMIT": "500"})
    assert overridden(PROFILES["general"], {"CELERY_TIME_LIMIT": "500"}) == PROFILES["general"]


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("GENERAL_CONCURRENCY", "many", "a whole number from 1 to 1000"),
        ("CELERY_POOL", "gevent", "one of threads, prefork, or solo"),
        ("GENERAL_AUTOSCALE", "2,4", "the most and the fewest processes, such as 8,2"),
        ("GENERAL_RETRY_DELAY", "-1", "from 0.05 to 60"),
        ("GENERAL_HEALTH_PORT", "-1", "a whole number from 0 to 65535"),
    ],
)
def test_mistakes_are_named_together_with_those_of_the_settings(name: str, raw: str, expected: str) -> None:
    environ = {**ENVIRONMENT, name: raw, "LOG_LEVEL": "LOUD"}
    with pytest.raises(SettingsError) as mistakes:
        load(PROFILES["general"], environ)
    lines = str(mistakes.value).splitlines()
    assert len(lines) == 2
    assert f"{name} must be " in lines[0]
    assert expected in lines[0]
    assert "LOG_LEVEL must be" in lines[1]


@pytest.mark.parametrize(
    ("profile", "said", "expected"),
    [
        ("slow", {"SLOW_SOFT_TIME_LIMIT": "90"}, "above BATCH_SLICE_SECONDS and INTERNAL_API_TIMEOUT together"),
        ("slow", {"BATCH_SLICE_SECONDS": "290"}, "SLOW_TIME_LIMIT is 300, and must be above BATCH_SLICE_SECONDS"),
        ("slow", {"SLOW_TIME_LIMIT": "200"}, "SLOW_SOFT_TIME_LIMIT is 240, and must be below SLOW_TIME_LIMIT, 200"),
        ("general", {"GENERAL_POOL": "prefork", "GENERAL_TIME_LIMIT": "300"}, "above TASK_DEADLINE_SECONDS"),
    ],
)
def test_no_limit_ends_what_a_task_may_take(profile: str, said: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        load(PROFILES[profile], {**ENVIRONMENT, **said})


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_every_profile_starts_with_the_settings_as_they_are(profile: object) -> None:
    assert load(profile, ENVIRONMENT)[0] == profile  # type: ignore[arg-type]


def test_celery_is_told_of_the_row() -> None:
    heavy = celery_settings(PROFILES["heavy"], settings())
    assert (heavy["worker_pool"], heavy["task_time_limit"], heavy["task_soft_time_limit"]) == ("prefork", 300, 240)
    assert (heavy["worker_max_memory_per_child"], heavy["worker_max_tasks_per_child"]) == (400_000, None)
    more = replace(PROFILES["general"], pool=Pool(concurrency=3, prefetch=5))
    found = celery_settings(more, settings())
    assert (found["worker_concurrency"], found["worker_prefetch_multiplier"], found["task_time_limit"]) == (3, 5, None)
