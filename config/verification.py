"""Proof that the tables fit together, and fit the tasks that there are: pure functions, a line with its remedy for each
thing that is wrong.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from config import contract_routes, queue_routing, workers
from config.beat_schedule import Entry
from config.queue_routing import Priority, Route, route_of
from config.workers import Profile, Worker

# Module of a worker's tasks -> name -> function.
Registered = Mapping[str, Mapping[str, Callable[..., object]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What is held against each other: the registry, the routing table, the contract."""

    queues: Mapping[str, Priority] = field(default_factory=lambda: queue_routing.QUEUES)
    routes: Sequence[Route] = field(default_factory=lambda: queue_routing.ROUTES)
    contract: Mapping[str, frozenset[str]] = field(default_factory=lambda: contract_routes.CONTRACT_ROUTES)
    workers: Mapping[str, Worker] = field(default_factory=lambda: workers.WORKERS)
    profiles: Mapping[str, Profile] = field(default_factory=lambda: workers.PROFILES)


def problems_of(profile: Profile, registered: Registered, tables: Tables) -> Iterator[str]:
    """What is wrong for one process: what a start refuses."""
    yield from _routes(tables)
    yield from _contract(tables)
    yield from _pool(profile)
    yield from _tasks(profile, registered, tables)


def problems(
    registered: Registered, layouts: Mapping[str, Sequence[Profile]], tables: Tables, scheduled: Sequence[Entry]
) -> Iterator[str]:
    """Everything that is wrong.

    Args:
        registered: every task of every worker.
        layouts: profiles that are deployed together, by a name for them.
        tables: what is verified.
        scheduled: the periodic tasks.
    """
    yield from _routes(tables)
    yield from _contract(tables)
    yield from _registry(tables)
    for profile in tables.profiles.values():
        yield from _pool(profile)
        yield from _tasks(profile, registered, tables)
    for layout, profiles in layouts.items():
        yield from _consumers(layout, profiles, tables)
    for name, count in Counter(entry.name for entry in scheduled).items():
        if count > 1:
            yield f"{count} schedule entries are called {name}; give each its own name in config/beat_schedule.py"
    for entry in scheduled:
        if route_of(entry.task, tables.routes) is None:
            near = _nearest(entry.task, [route.task for route in tables.routes])
            yield f"schedule entry {entry.name} has task {entry.task}, for which there is no rule; {near}, or {_ADD}"


_POOLS = ("threads", "prefork", "solo")
_ADD = "add a Route to config/queue_routing.py"


def _routes(tables: Tables) -> Iterator[str]:
    for task, count in Counter(route.task for route in tables.routes).items():
        if count > 1:
            yield f"task {task} has {count} rules; keep one in config/queue_routing.py"
    for route in tables.routes:
        if len(set(route.queues)) < len(route.queues):
            yield f"the rule for {route.task} names a queue twice; leave one away"
        for queue in route.queues:
            if queue not in tables.queues:
                near = _nearest(queue, tables.queues)
                yield f"the rule for {route.task} names queue {queue}, which is not in QUEUES; {near}, or add it there"


def _contract(tables: Tables) -> Iterator[str]:
    for task, expected in tables.contract.items():
        route = route_of(task, tables.routes)
        if route is None:
            yield f"task {task} has no rule, and others send it to {_list(sorted(expected))}; {_ADD}"
            continue
        missing = expected - set(route.queues)
        if missing or route.queue not in expected:
            said, right = _list(route.queues), _list(sorted(expected))
            yield f"the rule for {task} has {said}, and the contract (section 1) {right}; correct the rule"


def _registry(tables: Tables) -> Iterator[str]:
    holders = Counter(queue for worker in tables.workers.values() for queue in worker.queues)
    for queue, count in holders.items():
        if queue not in tables.queues:
            yield f"queue {queue} of config/workers.py has no class; add it to QUEUES in config/queue_routing.py"
        if count > 1:
            yield f"queue {queue} belongs to {count} workers; leave it to one in config/workers.py"
    for worker in tables.workers.values():
        yield from _row(worker, tables)
    kinds = Counter(row.is_api for worker in tables.workers.values() if (row := worker.orchestration))
    if kinds != {True: 1, False: 1}:
        yield "each kind of execution, is_api True and False, needs one orchestration, and only one; correct their rows"
    ports = {profile.name: profile.health_port for profile in tables.profiles.values()}
    ports |= {"beat": workers.BEAT_HEALTH_PORT, "monitor": workers.MONITOR_HEALTH_PORT}
    for port in (port for port, count in Counter(ports.values()).items() if count > 1):
        holding = [name for name, held in ports.items() if held == port]
        yield f"health port {port} is that of {_list(holding)}; give each its own in config/workers.py"


def _row(worker: Worker, tables: Tables) -> Iterator[str]:
    if worker.priority not in {tables.queues.get(queue) for queue in worker.queues}:
        yield f"worker {worker.name} is of class {worker.priority}, and none of its queues is; correct its row"
    least, most = worker.scaling.least, worker.scaling.most
    if not 0 <= least <= most:
        yield f"worker {worker.name} has {least} to {most} replicas; correct its scaling"
    yield from _orchestration(worker, tables)


def _orchestration(worker: Worker, tables: Tables) -> Iterator[str]:
    row = worker.orchestration
    if row is None:
        return
    for task, queue in (
        ("async_execute_bin", row.queue),
        ("process_file_batch", row.batch_queue),
        (row.callback_task, row.callback_queue),
    ):
        route = route_of(task, tables.routes)
        if route is None or queue not in route.queues:
            yield f"worker {worker.name} sends {task} to {queue}, and its rule does not; make them agree"
    if row.queue not in worker.queues:
        yield f"worker {worker.name} orchestrates what comes on {row.queue}, and does not consume it; add it there"


def _pool(profile: Profile) -> Iterator[str]:
    pool = profile.pool
    if pool.kind not in _POOLS:
        yield f"profile {profile.name} has a pool of {pool.kind!r}; make it one of {_list(_POOLS)}"
    most, least = pool.autoscale or (pool.concurrency, 1)
    if min(pool.concurrency, pool.prefetch) < 1 or not 1 <= least <= most:
        yield f"profile {profile.name} has a pool without a slot, or the least above the most; correct its row"
    if pool.kind != "prefork" and pool.preforks_alone:
        limits = _list(tuple(pool.preforks_alone))
        yield f"profile {profile.name} runs on {pool.kind}, which have no {limits}; take them away, or make it prefork"


def _tasks(profile: Profile, registered: Registered, tables: Tables) -> Iterator[str]:
    """Each task of a process has a rule, each message that its queues bring has a task, and each name one function."""
    functions: dict[str, Callable[..., object]] = {}
    for module in profile.task_modules:
        for name, function in registered.get(module, {}).items():
            if functions.setdefault(name, function) is not function:
                both = f"{_place(functions[name])} and {_place(function)}"
                yield f"task {name} means two functions in profile {profile.name}: {both}; rename one"
            if route_of(name, tables.routes) is None:
                near = _nearest(name, [route.task for route in tables.routes])
                yield f"task {name} ({_place(function)}) has no rule, so goes to Celery's default; {near}, or {_ADD}"
    for route in tables.routes:
        brought = any(queue in profile.queues for queue in route.queues)
        if brought and not any(route_of(name, tables.routes) == route for name in functions):
            near = _nearest(route.task, functions)
            yield f"the rule for {route.task} matches no task in profile {profile.name}; {near}, or correct its queue"


def _consumers(layout: str, profiles: Iterable[Profile], tables: Tables) -> Iterator[str]:
    consumed = {queue for profile in profiles for queue in profile.queues}
    for queue in tables.queues:
        if queue not in consumed:
            having = [profile.name for profile in tables.profiles.values() if queue in profile.queues]
            remedy = (
                f"deploy one of {_list(having)} too" if having else "add it to a worker's queues in config/workers.py"
            )
            yield f"queue {queue} has no consumer in {layout}; {remedy}"


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else "no name is like it"


def _place(function: Callable[..., object]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
