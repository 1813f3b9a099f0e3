"""What environment and command line say of one process: each over the registry's row, and over the one before it.

`CELERY_{SETTING}` is for a whole fleet, `{WORKER}_{SETTING}` for one worker or profile (`SLOW_CONCURRENCY`), and the
options of `celery worker` are for this one process.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.queue_routing import QUEUES, Priority
from config.workers import Pool, Profile
from shared.config import Settings
from shared.variables import SettingsError, integer, number, read

_MOST_SLOTS = 1_000


def _autoscale(raw: str) -> tuple[int, int] | int:
    """the most and the fewest processes, such as 8,2, or 0 for as many as CONCURRENCY says"""
    if raw == "0":
        return 0
    most, least = map(int, raw.split(","))
    if not 1 <= least <= most <= _MOST_SLOTS:
        raise ValueError
    return most, least


def _pool_kind(raw: str) -> str:
    """one of threads, prefork, or solo to debug"""
    kind = {"processes": "prefork"}.get(raw, raw)
    if kind not in {"threads", "prefork", "solo"}:
        raise ValueError
    return kind


_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Override:
    """One setting of a process: `SETTING`, the field of the registry's row that it replaces, and how it is read."""

    setting: str
    field: str
    parse: Callable[[str], Any]
    about: str

    @property
    def option(self) -> str:
        """The option of `celery worker` that says the same."""
        return f"--{self.setting.lower().replace('_', '-')}"


_OF_EVERY_POOL = (
    Override("POOL", "kind", _pool_kind, "how tasks run: threads of one process, or processes"),
    Override("CONCURRENCY", "concurrency", integer(1, _MOST_SLOTS), "tasks at once"),
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
HEALTH_PORT = Override("HEALTH_PORT", "health_port", integer(0, 65_535), "TCP port of the health server; 0: none")

Environment = Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source says: values by the field that they replace, and what it calls them.

    Attributes:
        own: whether it means this process, and not a fleet of which it is one.
    """

    values: Mapping[str, Any]
    names: Mapping[str, str]
    own: bool = True


class _Reader:
    """Reads overrides, and keeps what is wrong with them."""

    def __init__(self, source: Environment) -> None:
        self.mistakes: list[str] = []
        self._source = source

    def layer(self, prefix: str, overrides: Sequence[Override], *, own: bool = True) -> _Layer:
        """What the variables of that prefix say, or the options of the command line where it is empty."""
        names = {one.field: f"{prefix.upper()}_{one.setting}" if prefix else one.option for one in overrides}
        said = {one.field: self._said(names[one.field], one) for one in overrides}
        return _Layer({name: value for name, value in said.items() if value is not None}, names, own)

    def fields(self, names: Sequence[str], overrides: Sequence[Override]) -> dict[str, Any]:
        """What the variables of these prefixes say, the later over the earlier."""
        return {key: value for name in names for key, value in self.layer(name, overrides).values.items()}

    def _said(self, variable: str, override: Override) -> Any:
        spec = {"name": variable, "parse": override.parse, "about": override.about, "default": None, "optional": True}
        try:
            return read(spec, self._source)
        except SettingsError as mistake:
            self.mistakes.append(str(mistake))
            return None

    def settle(self) -> None:
        """Raise SettingsError if anything was wrong."""
        if self.mistakes:
            raise SettingsError("\n".join(dict.fromkeys(self.mistakes)))


def overridden(profile: Profile, environ: Environment = None) -> Profile:
    """The profile as the environment, or the mapping given, has it.

    What is prefork's alone is refused where it is said of a process with threads, and passes one by where it is said
    of the whole fleet. Retries are a worker's, whatever process it is in, unless they are said of the profile.

    Raises:
        SettingsError: one line for every variable that is wrong, with what was expected.
    """
    reader = _Reader(environ)
    layers = [reader.layer("celery", POOL, own=False), reader.layer(profile.name, POOL)]
    pool = _pool(profile.pool, layers, reader.mistakes)
    workers = tuple(
        replace(one, retries=replace(one.retries, **reader.fields(["celery", one.name, profile.name], RETRIES)))
        for one in profile.workers
    )
    port = reader.fields(["celery", profile.name], (HEALTH_PORT,)).get("health_port", profile.health_port)
    reader.settle()
    return replace(profile, pool=pool, workers=workers, health_port=port)


def health_port(name: str, usual: int, environ: Environment = None) -> int:
    """The port of a process that is no worker: what `{NAME}_HEALTH_PORT` says, or the usual one.

    Raises:
        SettingsError: it is no port.
    """
    reader = _Reader(environ)
    port = reader.fields([name], (HEALTH_PORT,)).get("health_port", usual)
    reader.settle()
    return int(port)


def commanded(profile: Profile, settings: Settings, options: Mapping[str, str]) -> Profile:
    """The profile as the command line has it: `--concurrency` and the like by their names, `--queues` among them.

    Raises:
        SettingsError: one line for every option that is wrong, with what was expected.
    """
    reader = _Reader(options)
    pool = _pool(profile.pool, [reader.layer("", POOL)], reader.mistakes)
    queues = [name.strip() for name in options.get("--queues", "").split(",") if name.strip()]
    found = replace(profile, pool=pool, queues=tuple(queues) or profile.queues)
    reader.mistakes += _limits(found, settings)
    reader.settle()
    return found


def _pool(pool: Pool, layers: Sequence[_Layer], mistakes: list[str]) -> Pool:
    kind = next((layer.values["kind"] for layer in reversed(layers) if "kind" in layer.values), pool.kind)
    pool = pool.of_kind(kind)
    alone = {override.field for override in _PREFORKS_ALONE}
    for layer in layers:
        values: dict[str, Any] = {name: value or None for name, value in layer.values.items() if name != "kind"}
        if kind != "prefork":
            said = [layer.names[name] for name in values if values[name] and name in alone and layer.own]
            mistakes += [f"{name} is set, and the pool of {kind} has no such limit: {_REMEDY}" for name in said]
            values = {name: value for name, value in values.items() if name not in alone}
        # So many processes, and not more or fewer.
        if "concurrency" in values and values.setdefault("autoscale", None):
            mistakes.append(f"{layer.names['concurrency']} and {layer.names['autoscale']} are set: leave one away")
        pool = replace(pool, **values)
    return pool


_REMEDY = (
    "make it prefork, or leave it away: every pool keeps the deadlines, TASK_DEADLINE_SECONDS and BATCH_SLICE_SECONDS"
)


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
    """A process that is interrupted in the time that its task may take would do it for ever.

    By the names of its own variables, whoever said it: they are what sets it right.
    """
    # Low queues bring batches, which have a slice, and steps of workflows, whose messages have limits of their own.
    low_alone = all(QUEUES.get(queue) is Priority.LOW for queue in profile.queues)
    longest = settings.batch_slice + settings.backend_timeout if low_alone else settings.task_deadline
    what = "BATCH_SLICE_SECONDS and INTERNAL_API_TIMEOUT together" if low_alone else "TASK_DEADLINE_SECONDS"
    name, pool = profile.name.upper(), profile.pool
    for setting, limit in (("SOFT_TIME_LIMIT", pool.soft_limit), ("TIME_LIMIT", pool.hard_limit)):
        if limit is not None and limit <= longest:
            yield f"{name}_{setting} is {limit}, and must be above {what}, {longest:g}, which a task may take"
    if pool.soft_limit and pool.hard_limit and pool.soft_limit >= pool.hard_limit:
        yield f"{name}_SOFT_TIME_LIMIT is {pool.soft_limit}, and must be below {name}_TIME_LIMIT, {pool.hard_limit}"
