"""Tenants, notifications, counters, switches, and the process itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from kombu.connection import Connection

ROOT = Path(__file__).resolve().parents[3]


def test_setup_is_idempotent(backend: Any) -> None:
    wanted = {
        "organization": f"org-{uuid.uuid4().hex[:8]}",
        "max_parallel_file_batches": 7,
        "notifications": [{"url": "http://127.0.0.1:1/hook", "platform": "SLACK", "notify_on_failures": True}],
    }
    first = backend.setup(**wanted)
    again = backend.setup(**wanted)
    assert {**again, "notification_ids": []} == {**first, "notification_ids": []}
    assert len(again["notification_ids"]) == 1
    key = f"configuration/MAX_PARALLEL_FILE_BATCHES/?organization_id={first['organization_id']}"
    assert backend.call("GET", key).json()["data"]["value"] == 7


def test_an_inactive_deployment_is_shown_so_and_not_served(backend: Any) -> None:
    made = backend.setup(active=False)
    shown = backend.call("GET", f"pipeline/{made['api_deployment_id']}/?check_active=true")
    assert shown.json()["pipeline"]["is_active"] is False
    path = f"/deployment/api/{made['organization_id']}/{made['api_name']}/"
    assert backend.http.post(path, headers={"Authorization": f"Bearer {made['api_key']}"}).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"workflow_type": "NOPE"},
        {"name": ""},
        {"workflow_type": "ETL"},
        {"workflow_type": "ETL", "source_folder": "relative"},
        {"workflow_type": "ETL", "source_folder": "/srv", "destination_table": "x; DROP TABLE y"},
        {"workflow_type": "ETL", "source_folder": "/srv", "destination_table": "backend_execution"},
        {"notifications": [{"platform": "API"}]},
    ],
)
def test_setup_says_what_is_wrong(backend: Any, wrong: dict[str, Any]) -> None:
    body = {"organization": "org-wrong", "workflow_type": "API", "name": "flow", **wrong}
    answer = backend.http.post("/sandbox/setup/", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_tenants_do_not_see_each_other(backend: Any) -> None:
    """32 threads, 8 organizations: every one reads its own execution and is refused all others'."""
    tenants = []
    for _ in range(8):
        made = backend.setup()
        tenants.append((made, backend.execution(), str(made["organization"])))

    def look(number: int) -> None:
        made, execution, key = tenants[number % 8]
        path = f"/internal/v1/workflow-execution/{execution}/?file_execution=false"
        for name in (made["organization_id"], key):
            answer = backend.http.get(path, headers={"X-Organization-ID": name})
            assert answer.json()["organization_context"]["organization_id"] == made["organization_id"]
        stranger = tenants[(number + 1) % 8][0]["organization_id"]
        assert backend.http.get(path, headers={"X-Organization-ID": stranger}).status_code == 500
        status = f"/internal/v1/workflow-execution/{execution}/update_status/"
        refused = backend.http.post(status, json={"status": "ERROR"}, headers={"X-Organization-ID": stranger})
        assert refused.status_code == 500

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(look, range(64)))


def test_one_row_for_one_key_under_sixteen_posts(backend: Any) -> None:
    backend.setup()
    execution = backend.execution()
    file = {"file_name": "a.pdf", "file_hash": "ab" * 32, "source_connection_type": "API", "file_path": "x/a.pdf"}
    body = {"execution_id": execution, "workflow_id": backend.organization["workflow_id"], "file_hash": file}
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: backend.call("POST", "file-execution/", body), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_invalid_tools_are_422(backend: Any) -> None:
    made = backend.setup(tools_valid=False)
    body = {"workflow_id": made["workflow_id"], "tool_instances": made["tool_instance_ids"]}
    answer = backend.call("POST", "tool-execution/validate/", body)
    assert answer.status_code == 422
    assert answer.json()["success"] is False
    assert len(answer.json()["errors"]) == 1


@pytest.mark.usefixtures("empty_queues")
def test_buffered_notifications_go_out_once_and_duplicates_are_counted(
    backend: Any,
    environment: dict[str, str],
) -> None:
    backend.control("DELETE", "stats")
    hook = {"url": "http://127.0.0.1:1/hook", "authorization_type": "BEARER", "authorization_key": "tok"}
    made = backend.setup(notifications=[hook])
    event = {
        "notification_id": made["notification_ids"][0],
        "type": "API",
        "execution_id": backend.execution(),
        "pipeline_id": made["api_deployment_id"],
        "pipeline_name": "flow",
        "status": "COMPLETED",
        "platform": "API",
    }
    rows = [backend.call("POST", "webhook/buffer/enqueue/", event).json()["buffer_row_id"] for _ in range(2)]
    assert backend.control("GET", "stats")["notifications"] == {"enqueued": 2, "duplicates": 1, "PENDING": 2}
    sent = backend.http.post("/internal/v1/webhook/buffer/process/", json={}).json()
    assert (sent["dispatched_groups"], sent["dispatched_rows"]) == (1, 2)
    assert backend.http.post("/internal/v1/webhook/buffer/process/", json={}).json()["dispatched_rows"] == 0
    with Connection(environment["CELERY_BROKER_URL"]) as connection:
        queue = connection.SimpleQueue("notifications")
        received = queue.get(timeout=5)
        received.ack()
        queue.close()
    (url, payload, headers, timeout), kwargs, _ = received.payload
    assert received.headers["task"] == "send_webhook_notification"
    assert (url, headers["Authorization"], timeout) == (hook["url"], "Bearer tok", 10)
    assert payload["count"] == 2
    assert kwargs["platform"] == "API"
    assert kwargs["buffer_row_ids"] == rows
    marked = {"buffer_row_ids": rows, "organization_id": kwargs["organization_id"]}
    assert backend.call("POST", "webhook/buffer/mark/dispatched/", marked).json()["updated"] == 2
    assert backend.control("GET", "stats")["notifications"]["DISPATCHED"] == 2


def test_requests_are_counted_by_route(echo: Any) -> None:
    echo.control("DELETE", "stats")
    body = echo.file(echo.execution())
    echo.execute(body)
    echo.poll(body)
    stats = echo.control("GET", "stats")
    assert stats["requests"] == {
        "GET v1/workflow-manager/execute-file/{id}/": 1,
        "POST v1/file-execution/": 1,
        "POST v1/workflow-manager/execute-file/": 1,
        "POST v1/workflow-manager/execution/create/": 1,
    }
    assert (stats["http_requests"], stats["polls"]) == (3, 1)
    assert stats["statuses"] == {"200": 3, "201": 1}


def outcomes(backend: Any, count: int = 40) -> list[int]:
    """The statuses of a row of requests; 0 is a connection that broke."""
    found = []
    for _ in range(count):
        try:
            found.append(backend.call("GET", "health/").status_code)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            found.append(0)
    return found


def test_faults_are_injected_at_their_rate_and_can_be_repeated(echo: Any) -> None:
    rates = {"rate_503": 0.3, "rate_reset": 0.2, "seed": 7}
    echo.control("PUT", "switches", rates)
    first = outcomes(echo)
    assert {0, 200, 503} == set(first)
    echo.control("PUT", "switches", rates)
    assert outcomes(echo) == first
    injected = echo.control("GET", "stats")["injected"]
    assert injected["503"] >= 2 * first.count(503)
    assert injected["reset"] >= 2 * first.count(0)


def test_a_connection_can_break_after_the_commit(echo: Any) -> None:
    execution = echo.execution()
    path = f"workflow-execution/{execution}/update_status/"
    echo.control("PUT", "switches", {"rate_reset_after": 1})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        echo.call("POST", path, {"status": "EXECUTING"})
    echo.control("PUT", "switches", {"rate_reset_after": 0})
    assert echo.control("GET", f"executions/{execution}/")["execution"]["status"] == "EXECUTING"


def test_one_path_can_fail_and_all_can_be_slow(echo: Any) -> None:
    path = f"workflow-execution/{echo.execution()}/update_status/"
    echo.control("PUT", "switches", {"error_500_seconds": 60, "latency_seconds": 0.2})
    assert echo.call("POST", path, {"status": "EXECUTING"}).status_code == 500
    answer = echo.call("GET", "health/")
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.2
    echo.control("PUT", "switches", {"error_500_seconds": 0, "latency_seconds": 0})
    assert echo.call("POST", path, {"status": "EXECUTING"}).status_code == 200


@pytest.mark.parametrize("wrong", [{"rate_503": 2}, {"nope": 1}, {"tool": "magic"}, {"latency_seconds": "1"}])
def test_wrong_switches_are_refused(backend: Any, wrong: dict[str, Any]) -> None:
    assert backend.http.put("/sandbox/switches", json=wrong).status_code == 400


def test_control_needs_the_key_and_health_does_not(backend: Any) -> None:
    with httpx.Client(base_url=backend.http.base_url, trust_env=False) as stranger:
        assert stranger.get("/sandbox/health").status_code == 200
        for path in ("/sandbox/stats", "/sandbox/switches", "/internal/v1/health/"):
            assert stranger.get(path).status_code == 401
            lower = {"Authorization": backend.http.headers["Authorization"].replace("Bearer", "bearer")}
            assert stranger.get(path, headers=lower).status_code == 401


def test_a_post_without_its_slash_is_500_and_a_get_is_sent_on(backend: Any) -> None:
    assert backend.call("POST", "webhook/buffer/process").status_code == 500
    assert backend.call("GET", "health?a=1").headers["location"] == "/internal/v1/health/?a=1"


def test_a_missing_key_is_told_in_one_line() -> None:
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "sandbox"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sandbox: INTERNAL_SERVICE_API_KEY is required")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 2), (signal.SIGKILL, 5)])
def test_a_signal_to_the_master_ends_all_processes(
    launch: Callable[..., Any], tmp_path: Path, number: signal.Signals, seconds: float
) -> None:
    """While a tool runs, another one is ready, and a client waits for the end of its execution."""
    backend = launch(tmp_path / "data", SANDBOX_TOOL_WAIT_SECONDS="0")
    (tmp_path / "a.txt").write_text("some words")
    backend.setup(workflow_type="TASK", source_folder=str(tmp_path))
    body = backend.file(backend.execution(), "a.txt", file_path="a.txt", source_connection_type="FILESYSTEM")
    backend.execute(body)
    backend.until("the tool to end", lambda: backend.poll(body).status_code == 200)
    backend.control("PUT", "switches", {"tool_seconds": 60})
    backend.execute(backend.file(backend.execution()))
    family = psutil.Process(backend.process.pid).children(recursive=True)
    assert len(family) == 2
    made = backend.setup()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(
            backend.http.post,
            f"/deployment/api/{made['organization_id']}/{made['api_name']}/",
            files=[("files", ("a.txt", b"some words"))],
            data={"timeout": "300"},
            headers={"Authorization": f"Bearer {made['api_key']}"},
        )
        staged = tmp_path / "data/storage/unstract/api" / made["organization_id"]
        backend.until("the client to wait", staged.exists)
        begun = time.monotonic()
        backend.process.send_signal(number)
        assert backend.process.wait(10) in {0, -signal.SIGKILL}
        backend.until("the other processes to end", lambda: all(map(ended, family)))
        assert time.monotonic() - begun < seconds
        assert isinstance(waiting.exception(10), httpx.TransportError)
    backend.http.close()


def ended(process: psutil.Process) -> bool:
    """Whether it runs no more; the orphans' new parent may leave it a zombie for a while."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
