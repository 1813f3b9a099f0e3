"""The registry and the routing table agree with each other, with the tasks, and with Celery."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery.exceptions import DuplicateTaskNameWarning

from config.queue_routing import QUEUES, ROUTES
from config.workers import (
    PROFILES,
    WORKERS,
    Pool,
    Profile,
    UnknownProfileError,
    orchestration_of,
    profile_named,
)
from shared.call import Call, WorkerApp
from shared.celery_app import build_app
from shared.celery_settings import celery_settings
from shared.lifecycle import Resources
from shared.task import task
from tests.fakes import one_worker, settings

ROOT = Path(__file__).resolve().parents[2]


def own_tasks(app: WorkerApp) -> set[str]:
    return {name for name in app.tasks if not name.startswith("celery.")}


def test_every_task_has_a_row_and_every_row_a_task() -> None:
    assert own_tasks(build_app(PROFILES["all"], settings())) == {route.task for route in ROUTES}


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_registers_what_its_queues_bring(name: str) -> None:
    profile = PROFILES[name]
    brought = {route.task for route in ROUTES if set(route.queues) & set(profile.queues)}
    assert brought <= own_tasks(build_app(profile, settings()))


def test_every_queue_has_one_worker_and_every_produced_queue_a_consumer() -> None:
    consumed = [queue for worker in WORKERS.values() for queue in worker.queues]
    assert len(consumed) == len(set(consumed))
    kinds = [orchestration_of(is_api=True), orchestration_of(is_api=False)]
    produced = {queue for kind in kinds for queue in (kind.queue, kind.batch_queue, kind.callback_queue)}
    assert produced | {queue for route in ROUTES for queue in route.queues} == set(consumed) == set(QUEUES)
    assert set(PROFILES["all"].queues) == set(consumed)


def test_health_ports_differ() -> None:
    assert [worker.health_port for worker in WORKERS.values()] == [8080, 8081, 8082, 8083]


@pytest.mark.parametrize(
    ("typed", "meant"), [("calback", "callback"), ("file-processing", "file_processing"), ("", "all")]
)
def test_a_typo_starts_no_other_worker(typed: str, meant: str) -> None:
    with pytest.raises(UnknownProfileError, match=re.escape(meant)):
        profile_named(typed)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_queues_are_declared_as_the_contract_says(profile: Any) -> None:
    for queue in celery_settings(profile, settings())["task_queues"]:
        assert (queue.exchange.name, queue.exchange.type, queue.routing_key) == (queue.name, "direct", queue.name)
        assert queue.durable
        assert not queue.queue_arguments


@pytest.mark.filterwarnings("ignore")
def test_one_name_for_two_functions_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):

        def function(_call: Call) -> None: ...

        module = ModuleType(name)
        setattr(module, name, task("async_execute_bin")(function))
        monkeypatch.setitem(sys.modules, name, module)
    rows = [one_worker(name, name, name).workers[0] for name in ("first", "second")]
    twice = Profile("twice", tuple(rows), ("first", "second"), Pool(concurrency=1), 1)
    with pytest.raises(DuplicateTaskNameWarning, match="async_execute_bin"):
        build_app(twice, settings())


def test_delivery_is_as_the_design_needs_it() -> None:
    """Late acknowledgement, redelivery when a worker is lost, one message per slot, confirmed publishing."""
    found = celery_settings(PROFILES["all"], settings(CELERY_BROKER_URL="amqp://guest:guest@rabbitmq.invalid//"))
    assert found["task_acks_late"]
    assert found["task_reject_on_worker_lost"]
    assert found["worker_prefetch_multiplier"] == 1
    assert found["broker_transport_options"] == {"confirm_publish": True}
    assert found["accept_content"] == ["json"]
    assert celery_settings(PROFILES["all"], settings())["broker_transport_options"]["visibility_timeout"] == 600


FORK = """
import os, sys
from shared.lifecycle import Resources
from tests.fakes import one_worker, settings
resources = Resources(settings())
mine, held = resources.client, resources.held("thing", lambda: "parent's")
if os.fork() == 0:
    os._exit(0 if resources.client is not mine and resources.held("thing", lambda: "child's") != held else 1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]) or resources.client is not mine)
"""


def test_what_a_process_holds_is_made_once_and_closed_with_it() -> None:
    made: list[Connection] = []
    resources = Resources(settings())

    def make() -> Connection:
        made.append(Connection())
        return made[-1]

    assert resources.held("thing", make) is resources.held("thing", make)
    resources.close()
    assert [one.closed for one in made] == [True]
    assert resources.held("thing", make) is not made[0]


class Connection:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_forked_child_has_connections_of_its_own() -> None:
    assert subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, check=False).returncode == 0
