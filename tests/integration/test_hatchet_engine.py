"""Our workflows on a real Hatchet, with a worker of ours beside it.

By hand: HATCHET_TEST_TOKEN=… uv run pytest tests/integration/test_hatchet_engine.py, and HATCHET_TEST_HOST_PORT where
the engine is elsewhere than the token says; the other HATCHET_CLIENT_ variables are its SDK's.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from shared.config import ClientSettings
from shared.errors import WorkerError
from shared.workflows.client import TaskClient, client_of
from shared.workflows.errors import RunFailedError
from tests.fakes import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
from typing import Any
from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow

@workflow(name="hatchet-test-{unique}")
class Trial(BaseWorkflow):
    @task(name="split")
    def split(self, text: str, ctx: TaskContext) -> dict[str, list[str]]:
        return {{"words": text.split()}}

    @task(name="measure", parents=["split"], map_over="words", retries=1, backoff_seconds=0.1)
    def measure(self, word: str, ctx: TaskContext) -> int:
        if word == "once" and ctx.attempt == 1 or word == "never":
            raise RuntimeError(word)
        return len(word)

    @task(name="leave", parents=["split"], when=lambda ctx: False)
    def leave(self, text: str, ctx: TaskContext) -> None: ...

    @task(name="sum", parents=["measure", "leave"])
    def sum(self, text: str, ctx: TaskContext) -> dict[str, Any]:
        return {{"sum": sum(ctx.task_output("measure")), "skipped": ctx.was_skipped("leave")}}

    @task(name="aside")
    def aside(self, text: str, ctx: TaskContext) -> str:
        return text

    def on_failure(self, text: str, ctx: TaskContext) -> list[str]:
        return [str(failure) for failure in ctx.failures]
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TaskClient, str]]:
    token, address = os.environ.get("HATCHET_TEST_TOKEN"), os.environ.get("HATCHET_TEST_HOST_PORT")
    if not token:
        # Also with REQUIRE_SERVICES=1: CI has no engine of Hatchet's.
        pytest.skip("there is no Hatchet to test with, in CI neither; set HATCHET_TEST_TOKEN")
    unique = uuid4().hex
    (tmp_path / "hatchet_trial.py").write_text(MODULE.format(unique=unique))
    chosen = {"HATCHET_CLIENT_TOKEN": token, "WORKFLOW_MODULES": "hatchet_trial", "TASK_QUEUE_BACKEND": "hatchet"}
    chosen |= {"HATCHET_CLIENT_HOST_PORT": address} if address else {}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(tmp_path))
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    worker = subprocess.Popen([sys.executable, "-m", "shared.workflows.engines.hatchet"], cwd=tmp_path, env=environment)
    try:
        with client_of(ClientSettings.load()) as made:
            yield made, f"hatchet-test-{unique}"
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)


def test_runs_on_a_real_hatchet_end_as_declared(client: tuple[TaskClient, str]) -> None:
    made, name = client
    # A run may be started before its worker has registered its workflow: then Hatchet does not know the name.
    run_id = _started(made, name, "one once three")
    assert made.result(run_id, 90) == {"sum": {"sum": 12, "skipped": True}, "aside": "one once three"}
    assert made.start_workflow(name, "one once three", run_key="key") == made.start_workflow(
        name, "one once three", run_key="key"
    )
    failed = made.start_workflow(name, "one never")
    with pytest.raises(RunFailedError, match="step measure, item 1 failed at attempt 2: RuntimeError: never"):
        made.result(failed, 90)
    states = {step: view.state for step, view in made.status(failed).steps.items()}
    assert states == {
        "split": "succeeded",
        "measure": "failed",
        "leave": "skipped",
        "sum": "not_run",
        "aside": "succeeded",
        "on_failure": "succeeded",
    }


def _started(made: TaskClient, name: str, text: str) -> str:
    for _ in range(60):
        try:
            return made.start_workflow(name, text)
        except WorkerError:
            time.sleep(1)
    raise AssertionError(f"Hatchet has not come to know {name} within a minute")
