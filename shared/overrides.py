"""What the environment says of one process: over the registry's row, below the command line.

`{WORKER}_{SETTING}` is for one worker or profile (`FILE_PROCESSING_CONCURRENCY`), `CELERY_{SETTING}` for a whole fleet.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.workers import Pool, Profile
from shared.config import Settings
from shared.variables import SettingsError, integer, number, one_of, read


def _autoscale(raw: str) -> tuple[int, int]:
    """the most and the fewest processes, such as 8,2"""
    most, least = map(int, raw.split(","))
    if not 1 <= least <= most:
        raise ValueError
    return most, least


_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Override:
    """One setting of a process: `SETTING`, the field of the registry's row that it replaces, and how it is read."""

    setting: str
    field: str
    parse: Callable[[str], Any]
    about: str


_OF_EVERY_POOL = (
    Override("POOL", "kind", one_of("threads", "prefork"), "how tasks run: threads of one process, or processes"),
    Override("CONCURRENCY", "concurrency", integer(1, 1_000), "tasks at once"),
    Override("PREFETCH_MULTIPLIER", "prefetch", integer(1, 100), "messages that each slot takes"),
)
_PREFORKS_ALONE = (
    Override("SOFT_TIME_LIMIT", "soft_limit", integer(0, _DAY), "seconds, then a task is interrupted; 0: never"),
    Override("TIME_LIMIT", "hard_limit", integer(0, _DAY), "seconds, then its process is killed; 0: never"),
    Override("MAX_TASKS_PER_CHILD", "max_tasks_per_child", integer(0, 1_000_000), "tasks of one process; 0: no limit"),
    Override("MAX_MEMORY_PER_CHILD", "max_memory_per_child", integer(0, 1 << 30), "KiB of one process; 0: no limit"),
    Override("AUTOSCALE", "autoscale", _autoscale, "the most and the fewest processes"),
)
POOL = (*_OF_EVERY_POOL, *_PREFORKS_ALONE)
RETRIES = (
    Override("MAX_RETRIES", "most", integer(0, 1_000_000), "retries of one message, besides the time that it has"),
    Override("RETRY_DELAY", "first_wait", number(0.05, 60), "seconds before the first retry, then doubled"),
)
HEALTH_PORT = Override("HEALTH_PORT", "health_port", integer(1, 65_535), "TCP port of the health server")

Environment = Mapping[str, str] | None


class _Reader:
    """Reads overrides, and keeps what is wrong with them."""

    def __init__(self, environ: Environment) -> None:
        self.mistakes: list[str] = []
        self._environ = environ

    def fields(self, prefix: str, overrides: Sequence[Override]) -> dict[str, Any]:
        """The fields of a row that the variables of that prefix replace."""
        said = {one.field: self._said(f"{prefix.upper()}_{one.setting}", one) for one in overrides}
        return {name: value for name, value in said.items() if value is not None}

    def _said(self, variable: str, override: Override) -> Any:
        spec = {"name": variable, "parse": override.parse, "about": override.about, "default": None, "optional": True}
        try:
            return read(spec, self._environ)
        except SettingsError as mistake:
            self.mistakes.append(str(mistake))
            return None


def overridden(profile: Profile, environ: Environment = None) -> Profile:
    """The profile as the environment, or the mapping given, has it.

    What is prefork's alone is refused where it is said of a process with threads, and passes one by where it is said
    of the whole fleet.

    Raises:
        SettingsError: one line for every variable that is wrong, with what was expected.
    """
    reader = _Reader(environ)
    pool = _pool(profile, reader)
    workers = tuple(
        replace(worker, retries=replace(worker.retries, **_both(worker.name, RETRIES, reader)))
        for worker in profile.workers
    )
    port = reader.fields(profile.name, (HEALTH_PORT,)).get("health_port", profile.health_port)
    if reader.mistakes:
        raise SettingsError("\n".join(dict.fromkeys(reader.mistakes)))
    return replace(profile, pool=pool, workers=workers, health_port=port)


def _both(name: str, overrides: Sequence[Override], reader: _Reader) -> dict[str, Any]:
    return reader.fields("celery", overrides) | reader.fields(name, overrides)


def _pool(profile: Profile, reader: _Reader) -> Pool:
    said = _both(profile.name, _OF_EVERY_POOL, reader)
    pool = replace(profile.pool.of_kind(said.get("kind", profile.pool.kind)), **said)
    if "concurrency" in said:  # so many processes, and not more or fewer
        pool = replace(pool, autoscale=None)
    limits: dict[str, Any] = _both(profile.name, _PREFORKS_ALONE, reader)
    if pool.kind == "prefork":
        unlimited: dict[str, Any] = {name: None if value == 0 else value for name, value in limits.items()}
        return replace(pool, **unlimited)
    name = profile.name.upper()
    for override in _PREFORKS_ALONE:
        if reader.fields(name, (override,)).get(override.field):
            reader.mistakes.append(
                f"{name}_{override.setting} is set, and threads have no such limit: set {name}_POOL=prefork, or leave "
                "it to the deadlines that every pool keeps (TASK_DEADLINE_SECONDS, BATCH_SLICE_SECONDS)"
            )
    return pool


def load(profile: Profile, environ: Environment = None) -> tuple[Profile, Settings]:
    """What a process is made of: the profile as its environment has it, and its settings.

    Raises:
        SettingsError: all that is wrong with either, a line each.
    """
    mistakes: list[str] = []
    settings = None
    try:
        profile = overridden(profile, environ)
    except SettingsError as error:
        mistakes.append(str(error))
    try:
        settings = Settings.load(environ)
    except SettingsError as error:
        mistakes.append(str(error))
    if settings is not None:
        mistakes += _limits(profile, settings)
    if mistakes or settings is None:
        raise SettingsError("\n".join(mistakes))
    return profile, settings


def _limits(profile: Profile, settings: Settings) -> Iterator[str]:
    """A process that is interrupted in the time that its task may take would do it for ever."""
    batches_alone = all(worker.name == "file_processing" for worker in profile.workers)
    longest = settings.batch_slice + settings.backend_timeout if batches_alone else settings.task_deadline
    what = "BATCH_SLICE_SECONDS and INTERNAL_API_TIMEOUT together" if batches_alone else "TASK_DEADLINE_SECONDS"
    name, pool = profile.name.upper(), profile.pool
    for setting, limit in (("SOFT_TIME_LIMIT", pool.soft_limit), ("TIME_LIMIT", pool.hard_limit)):
        if limit is not None and limit <= longest:
            yield f"{name}_{setting} must be above {what}, which a task may take: {limit} is not above {longest:g}"
    if pool.soft_limit and pool.hard_limit and pool.soft_limit >= pool.hard_limit:
        yield f"{name}_SOFT_TIME_LIMIT must be below {name}_TIME_LIMIT, and {pool.soft_limit} >= {pool.hard_limit}"
