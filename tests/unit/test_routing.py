"""The tables are held against each other, the tasks and the contract; whatever is broken in one of them is named."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from config.beat_schedule import ENTRIES, Entry
from config.contract_routes import CONTRACT_ROUTES
from config.queue_routing import QUEUES, ROUTES, WORKFLOW_QUEUES, Priority, Route, route_of, task_routes
from config.verification import Tables, problems, problems_of
from config.workers import LAYOUTS, PROFILES, WORKERS, Pool, Profile, Scaling, orchestration_of
from shared.commands.routing import rows
from shared.start_check import registered

ROOT = Path(__file__).resolve().parents[2]
TASKS = registered(PROFILES["all"].task_modules)
Layouts = Mapping[str, Sequence[Profile]]


def found(
    registered_tasks: Any = TASKS, layouts: Layouts = LAYOUTS, scheduled: Sequence[Entry] = ENTRIES, **tables: Any
) -> list[str]:
    return list(problems(registered_tasks, layouts, Tables(**tables), scheduled))


def without(task: str) -> list[Route]:
    return [route for route in ROUTES if route.task != task]


def test_nothing_is_wrong() -> None:
    assert found() == []
    for profile in PROFILES.values():
        assert list(problems_of(profile, registered(profile.task_modules), Tables())) == []


@pytest.mark.parametrize("name", CONTRACT_ROUTES)
def test_a_deleted_rule_is_named_and_stops_the_workers_that_have_the_task(name: str) -> None:
    left = Tables(routes=without(name))
    assert any(name in line and "no rule" in line for line in found(routes=left.routes))
    holder = next(p for p in PROFILES.values() if any(name in TASKS[module] for module in p.task_modules))
    assert any(f"task {name} (" in line for line in problems_of(holder, TASKS, left))


@pytest.mark.parametrize("module", TASKS)
def test_a_task_that_is_renamed_in_its_module_alone_is_named(module: str) -> None:
    old = next(iter(TASKS[module]))
    every = {
        key: {f"{old}s" if name == old else name: one for name, one in tasks.items()} for key, tasks in TASKS.items()
    }
    lines = found(every)
    assert any(line.startswith(f"task {old}s (") and f"did you mean {old}?" in line for line in lines)
    assert any(line.startswith(f"the rule for {old} matches no task") and f"{old}s?" in line for line in lines)
    mine = next(profile for profile in PROFILES.values() if module in profile.task_modules)
    assert any(f"{old}s (" in line for line in problems_of(mine, every, Tables()))


def changed(worker: str, **fields: Any) -> dict[str, Any]:
    return {**WORKERS, worker: replace(WORKERS[worker], **fields)}


def profile_with(name: str, pool: Pool) -> dict[str, Any]:
    return {**PROFILES, name: replace(PROFILES[name], pool=pool)}


def other_function() -> None: ...


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            {"routes": [*ROUTES, Route("process_file_batch", "celery")]},
            "task process_file_batch has 2 rules; keep one",
        ),
        (
            {"routes": [*without("logs_consumer"), Route("logs_consumer", "celery_log_task_queu")]},
            "names queue celery_log_task_queu, which is not in QUEUES; did you mean celery_log_task_queue?",
        ),
        (
            {"routes": [*without("logs_consumer"), Route("logs_consumer", "celery")]},
            "the rule for logs_consumer has celery, and the contract (section 1) celery_log_task_queue",
        ),
        (
            {"routes": [*ROUTES, Route("legacy.*", "celery")]},
            "the rule for legacy.* matches no task in profile general",
        ),
        (
            {"queues": {**QUEUES, "orphans": Priority.LOW}},
            "queue orphans has no consumer in workers; add it to a worker's",
        ),
        (
            {"queues": {name: one for name, one in QUEUES.items() if name != "scheduler"}},
            "queue scheduler of config/workers.py has no class",
        ),
        ({"workers": changed("callback", queues=("celery",))}, "queue celery belongs to 2 workers"),
        (
            {"workers": changed("callback", priority=Priority.LOW)},
            "worker callback is of class low, and none of its queues",
        ),
        (
            {
                "workers": changed(
                    "general", orchestration=replace(orchestration_of(is_api=False), batch_queue="celery")
                )
            },
            "worker general sends process_file_batch to celery, and its rule does not",
        ),
        (
            {"workers": changed("general", queues=("scheduler",))},
            "worker general orchestrates what comes on celery, and does not consume it",
        ),
        (
            {"profiles": profile_with("callback", Pool(concurrency=8, hard_limit=300, max_tasks_per_child=10))},
            "profile callback runs on threads, which have no hard_limit, max_tasks_per_child; take them away",
        ),
        (
            {"profiles": {**PROFILES, "slow": replace(PROFILES["slow"], health_port=8080)}},
            "health port 8080 is that of api_deployment, slow",
        ),
        ({"layouts": {"mine": (PROFILES["fast"],)}}, "queue file_processing has no consumer in mine; deploy one of"),
        (
            {"scheduled": [Entry(name="nightly", task="process_log_histroy", schedule=1)]},
            "schedule entry nightly has task process_log_histroy",
        ),
        ({"scheduled": [*ENTRIES, ENTRIES[0]]}, "2 schedule entries are called release-expired-reservations"),
        ({"profiles": profile_with("high", Pool(kind="thread", concurrency=1))}, "profile high has a pool of 'thread'"),
        ({"profiles": profile_with("high", Pool(concurrency=0))}, "profile high has a pool without a slot"),
        ({"workers": changed("callback", scaling=Scaling(least=9, most=5, queue_depth=1, age=1))}, "9 to 5 replicas"),
        (
            {"workers": changed("callback", orchestration=orchestration_of(is_api=True))},
            "each kind of execution, is_api True and False, needs one orchestration",
        ),
        (
            {"profiles": {**PROFILES, "low": replace(PROFILES["low"], health_port=8091)}},
            "health port 8091 is that of low, beat",
        ),
        ({"routes": [*ROUTES, Route("x", "celery", ("celery",))]}, "the rule for x names a queue twice"),
        (
            {
                "registered_tasks": {
                    **TASKS,
                    "callback.tasks": {**TASKS["callback.tasks"], "async_execute_bin": other_function},
                }
            },
            "task async_execute_bin means two functions in profile all: shared.entry.async_execute_bin and ",
        ),
    ],
)
def test_each_mistake_has_its_line(broken: dict[str, Any], said: str) -> None:
    assert [line for line in found(**broken) if said in line], found(**broken)


def test_an_exact_name_wins_and_then_the_longest_prefix() -> None:
    routes = (Route("a.*", "one"), Route("a.b.*", "two"), Route("a.b.c", "three"))
    assert [getattr(route_of(name, routes), "queue", None) for name in ("a.b.c", "a.b.d", "a.x", "ab", "b")] == [
        "three",
        "two",
        "one",
        None,
        None,
    ]


def test_celery_takes_the_same_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = (Route("a.*", "one"), Route("a.b.*", "two"), Route("a.b.c", "three"), *ROUTES)
    monkeypatch.setattr("config.queue_routing.ROUTES", routes)
    with Celery(fixups=[], set_as_current=False) as app:
        app.conf.task_routes = task_routes()
        for name in ("a.b.c", "a.b.d", "a.x", *(route.task for route in ROUTES)):
            expected = route_of(name, routes)
            assert expected is not None
            assert app.amqp.router.route({}, name)["queue"].name == expected.queue


def contract_table() -> dict[str, set[str]]:
    """The rows of section 1: task -> queues, the aliases by the words that stand for their queues."""
    text = (ROOT / "CONTRACT.md").read_text().split("## 2.")[0]
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 5 or not cells[1].startswith("`"):
            continue
        names, queues = re.findall(r"`([^`]+)`", cells[1]), set(re.findall(r"`([^`]+)`", cells[3]))
        if cells[3] == "as the two above":
            prefix = names[0].rpartition(".")[0]
            found[names[0]] = {"file_processing"}
            found[f"{prefix}.{names[1].lstrip('…. ')}"] = {"file_processing_callback"}
        else:
            found[names[0]] = queues
    return found


def test_the_contracts_table_is_the_contracts() -> None:
    assert contract_table() == {task: set(queues) for task, queues in CONTRACT_ROUTES.items()}


def test_the_contract_names_no_other_queue() -> None:
    text = (ROOT / "CONTRACT.md").read_text().split("## 2.")[0]
    ours = set(WORKFLOW_QUEUES.values())
    named = set(re.findall(r"`([a-z_]+)`", text.split("Queues besides:")[1].split(".")[0]))
    assert {queue for queues in CONTRACT_ROUTES.values() for queue in queues} | named | ours == set(QUEUES)


def test_the_table_shows_who_consumes_what() -> None:
    shown = {(task, queue): (priority, by) for task, queue, priority, by in rows()}
    assert shown["async_execute_bin", "celery_api_deployments"] == ("high", "api_deployment; all, fast, high")
    assert shown["process_file_batch", "file_processing"] == ("low", "file_processing; all, slow, low, heavy")
    assert {queue for _, queue in shown} == set(QUEUES)
