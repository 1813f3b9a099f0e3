"""Traces through worker processes. That they cost nothing where nobody wants them: test_command_line.py."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.driver import Driver
from sandbox.stack import FOUR, Stack, wait_for
from tests.acceptance.conftest import BACKEND, QUICK, Fleet
from tests.acceptance.test_executions import documents, events, everything_completed, finish

ROOT = Path(__file__).resolve().parents[2]
# A process of a prefork pool writes its own spans, so each worker has one.
ONE_SLOT = {"threads": {}, "prefork": {"CELERY_POOL": "prefork", "CELERY_CONCURRENCY": "1"}}
SHORT = {"INTERNAL_API_RETRY_ATTEMPTS": "1", "BATCH_SLICE_SECONDS": "1", "INTERNAL_API_TIMEOUT": "0.9"}
pytestmark = pytest.mark.timeout(240)


@contextmanager
def traced(folder: Path, *profiles: str, **settings: str) -> Iterator[Fleet]:
    """A fleet whose spans are in files of that folder once its workers have ended."""
    with Stack() as stack:
        stack.start_redis()
        stack.start_backend(**BACKEND)
        environment = stack.environment(OTEL_TRACES_EXPORTER="otlp", **QUICK | settings)
        for name in profiles:
            module = [sys.executable, "-P", "-m", "tests.acceptance.worker_with_spans", name]
            stack.start(name, [*module, str(folder / name)], environment)
        stack.wait_until_ready()
        with Driver(stack) as driver:
            yield stack, driver


def spans_of(stack: Stack, folder: Path, *profiles: str) -> list[dict[str, Any]]:
    for name in profiles:
        stack.kill(name, signal.SIGTERM)
    wait_for(lambda: not any(map(stack.alive, profiles)), 30, "the workers to end")
    return [span | {"worker": name} for name in profiles for span in json.loads((folder / name).read_text())]


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=pytest.mark.matrix)])
def test_one_api_call_is_one_trace_across_the_four_workers(tmp_path: Path, pool: str) -> None:
    """With hand-backs, since its tools outlast the slice, and with retries, since its backend answers 500 at first."""
    with traced(tmp_path, *FOUR, **ONE_SLOT[pool], **SHORT) as (stack, driver):
        deployment = driver.deploy("traced", batches=2)
        driver.control("PUT", "switches", {"error_500_seconds": 60.0, "error_500_path": "tool-"})
        sent = documents(tmp_path, 2)
        posted = driver.post(deployment, sent)
        wait_for(lambda: bool(events(stack, "api_deployment", "task_ended")), 30, "a try that fails")
        driver.control("PUT", "switches", {"reset": True})
        driver.control("PUT", "switches", {"tool_seconds": 1.5})
        run = finish(driver, posted)
        everything_completed(driver, deployment, run, sent)
        lines = [line for name in FOUR for line in events(stack, name, "task_ended")]
        found = spans_of(stack, tmp_path, *FOUR)
    by_id = {span["context"]["span_id"]: span for span in found}
    (trace,) = {span["context"]["trace_id"] for span in found}
    (root,) = [span for span in found if span["parent_id"] is None]
    assert all(span["parent_id"] in by_id for span in found if span is not root)
    assert root["name"] == "run async_execute_bin"
    assert {f"0x{line['trace_id']}" for line in lines} == {trace}
    assert len({line["request_id"] for line in lines}) == 1
    deliveries = [span for span in found if span["kind"] == "SpanKind.CONSUMER"]
    assert sorted((span["name"][4:], span["attributes"]["outcome"]) for span in deliveries) == sorted(
        (line["task"], line["outcome"]) for line in lines
    )
    assert {"retried", "handed_back", "succeeded"} == {span["attributes"]["outcome"] for span in deliveries}
    for span in found:
        assert span["attributes"]["execution_id"] == run.execution_id
        assert span["attributes"]["organization_id"] == deployment.organization_id
    names = {(span["worker"], span["name"]) for span in found}
    assert ("api_deployment", "send process_file_batch") in names
    assert ("file_processing", "send process_batch_callback_api") in names
    assert ("callback", "POST v1/workflow-execution/{execution_id}/update_status/") in names
    written = json.dumps(found)
    for secret in (stack.key, stack.redis_password, "nobody else has it"):
        assert secret not in written


def test_a_start_that_wants_traces_without_opentelemetry_names_what_to_install() -> None:
    script = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "sys.argv = ['shared', 'callback']\n"
        "import runpy; runpy.run_module('shared', run_name='__main__')\n"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "ENVIRONMENT": "development",
        "INTERNAL_API_BASE_URL": "http://127.0.0.1:9/internal",
        "INTERNAL_SERVICE_API_KEY": "unused",
        "CELERY_BROKER_URL": "redis://127.0.0.1:9/0",
        "CACHE_REDIS_HOST": "127.0.0.1",
        "OTEL_TRACES_EXPORTER": "otlp",
    }
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "workers: callback cannot start:\nOTEL_TRACES_EXPORTER is otlp" in ran.stderr
    assert "uv sync --group tracing" in ran.stderr
