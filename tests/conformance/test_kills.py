"""Workflows on worker processes that are killed at any moment: every run ends as it does on paper."""

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from sandbox.stack import Stack
from shared.workflows import catalogue
from shared.workflows.client import TaskClient
from shared.workflows.engines.celery import CeleryEngine, FleetSettings
from shared.workflows.shape import ON_FAILURE, RunStatus
from tests.conformance.drawn import Drawn, Journal, by_seed, expected
from tests.conformance.engines import LIMITS
from tests.conformance.test_engines import check_end
from tests.conftest import emptied_rabbitmq

MODULE = "tests.conformance.workflows_by_seed"
WORKERS = ("first", "second")
_SECONDS = 90.0

pytestmark = pytest.mark.timeout(240)


def _check(client: TaskClient, run_id: str, drawn: Drawn, journal: Journal) -> int:
    """As on paper: outcome, states, and which attempts there were. How many of these were begun again."""
    paper = expected(drawn)
    check_end(client, run_id, drawn, paper, _SECONDS)
    view = client.status(run_id)
    assert {name: step.state for name, step in view.steps.items() if name != ON_FAILURE} == paper.states
    assert {name: step.attempts for name, step in view.steps.items() if name != ON_FAILURE} == paper.attempts
    lines = [line for line in journal.lines() if line["what"] == "begun"]
    for step in drawn.steps:
        pieces = {(line["item"], line["attempt"]) for line in lines if line["step"] == step.name}
        assert len(pieces) == paper.attempts[step.name]
    wanted = drawn.on_failure and paper.status is RunStatus.FAILED
    assert any(line["step"] == ON_FAILURE for line in lines) == wanted
    return len(lines) - len({(line["step"], line["item"], line["attempt"]) for line in lines})


@pytest.mark.parametrize(
    ("broker", "pool"),
    [
        ("rabbitmq", "threads"),
        pytest.param("redis", "threads", marks=pytest.mark.matrix),
        pytest.param("redis", "prefork", marks=pytest.mark.matrix),
        pytest.param("rabbitmq", "prefork", marks=pytest.mark.matrix),
    ],
)
def test_runs_end_as_on_paper_though_workers_are_killed(broker: str, pool: str, tmp_path: Path) -> None:
    if broker == "rabbitmq":
        with emptied_rabbitmq() as url:
            _kill_while_runs_flow(url, pool, tmp_path)
    else:
        _kill_while_runs_flow(None, pool, tmp_path)


def _kill_while_runs_flow(broker: str | None, pool: str, folder: Path) -> None:
    settings = {
        "WORKFLOW_MODULES": MODULE,
        "LEASE_SECONDS": "2",
        "STALL_SECONDS": "6",
        "REAPER_INTERVAL_SECONDS": "1",
        "MAX_DELIVERIES": "100",
        "BATCH_SLICE_SECONDS": "2",
        "INTERNAL_API_TIMEOUT": "1",
        "TASK_DEADLINE_SECONDS": "5",
        "DRAIN_SECONDS": "1",
        "BROKER_VISIBILITY_TIMEOUT": "10",
    }
    with Stack(broker) as stack:
        stack.start_redis()
        stack.wait_until_ready()
        for name in WORKERS:
            argv = [sys.executable, "-P", "-m", "shared", "general", f"--hostname={name}@%h", "--pool", pool]
            stack.start(name, [*argv, "--concurrency", "4"], stack.environment(**settings))
        stack.wait_until_ready()
        known = catalogue.load([MODULE])
        environment = stack.environment(**settings)
        client = TaskClient(CeleryEngine(FleetSettings.load(environment), known, LIMITS), known, LIMITS)
        with client:
            runs = []
            for seed, declared in enumerate(known):
                journal = Journal(folder / str(seed))
                assert declared.name == by_seed(seed).name
                run_id = client.start_workflow(declared.name, {"journal": str(journal.path)})
                runs.append((run_id, by_seed(seed), journal))
            chance = random.Random(broker or "redis")  # noqa: S311 # it guards nothing
            for _ in range(8):
                time.sleep(chance.uniform(0.3, 1.2))
                name = chance.choice(WORKERS)
                stack.kill(name, signal.SIGKILL)
                stack.restart(name)
            died = [_check(client, run_id, drawn, journal) for run_id, drawn, journal in runs]
            assert sum(died) >= 3, "hardly an attempt was killed in the middle"
