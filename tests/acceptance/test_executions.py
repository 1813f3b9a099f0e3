"""Whole executions through worker processes and the reference backend, in fair weather and in foul."""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from kombu.connection import Connection

from config.queue_routing import DEAD_LETTERS
from sandbox.driver import Deployment, Driver, Run
from sandbox.stack import FOUR, Stack, alive, wait_for
from shared.claims import TOMBSTONE_SECONDS
from tests.acceptance.conftest import QUICK, Fleet

pytestmark = pytest.mark.timeout(240)


def documents(folder: Path, count: int) -> dict[str, Path]:
    found = {}
    for number in range(count):
        name = f"note-{number:04d}.txt"
        found[name] = folder / name
        found[name].write_text(f"This is note number {number}, and nobody else has it.")
    return found


def finish(driver: Driver, run: Run, seconds: float = 120) -> Run:
    for _ in driver.watch(run, seconds):
        pass
    return run


def watch_until_a_file_is(driver: Driver, run: Run, status: str) -> None:
    for seen in driver.watch(run):
        if any(row["status"] == status for row in seen.files.values()):
            return


def events(stack: Stack, worker: str, event: str) -> list[dict[str, Any]]:
    lines = stack.parts[worker].log.read_text().splitlines()
    return [found for line in lines if f'"{event}"' in line and (found := json.loads(line))["event"] == event]


def counts(run: Run) -> tuple[str, int, int, int]:
    row = run.execution
    return row["status"], row["total_files"], row["successful_files"], row["failed_files"]


def everything_completed(driver: Driver, deployment: Deployment, run: Run, names: Any) -> None:
    """Every file COMPLETED with its own text, its tools run once, its result there once."""
    assert counts(run) == ("COMPLETED", len(names), len(names), 0)
    assert {name: row["status"] for name, row in run.files.items()} == dict.fromkeys(names, "COMPLETED")
    results = driver.results(deployment, run)
    assert set(results) == set(names)
    for name, item in results.items():
        assert f"note number {int(name[5:9])}," in item["result"]["text"]
    assert driver.control("GET", "stats")["tool_runs"]["max"] == 1


def is_tombstone(key: str) -> bool:
    return key.endswith((":ended", ":released", ":log")) or key.startswith(
        ("workers:message:", "workers:webhook:", "workers:log:", "workers:errors")
    )


def nothing_is_left(stack: Stack) -> None:
    """No message, no lease, no key of an execution; only the backend's results, and what is done, stay a while."""

    def keys() -> set[str]:
        with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
            found = {key for key in client.scan_iter() if not key.startswith(("_kombu.", "api_results:"))}
            return {key for key in found if not (is_tombstone(key) and 0 < client.ttl(key) <= TOMBSTONE_SECONDS)}

    wait_for(lambda: keys() == set(), 10, f"an empty state store, which has {keys()}")


def no_secret_is_logged(stack: Stack) -> None:
    """Neither a key nor a word of a document on any line that a worker wrote."""
    for name in stack.parts.keys() - {"backend", "redis"}:
        log = stack.parts[name].log.read_text()
        assert "task_ended" in log
        for secret in (stack.key, stack.redis_password, "nobody else has it"):
            assert secret not in log


def test_two_hundred_documents_in_one_request(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    deployment = driver.deploy("many", batches=8)
    sent = documents(tmp_path, 200)
    run = finish(driver, driver.post(deployment, sent))
    everything_completed(driver, deployment, run, sent)
    assert driver.control("GET", "stats")["http_requests"] <= 3 * 200 + 50
    nothing_is_left(stack)


def test_tools_that_outlast_the_slice_hand_the_batch_back(
    broker_url: str | None, start_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    stack, driver = start_fleet("all", broker_url=broker_url)
    deployment = driver.deploy("slow", batches=2)
    driver.control("PUT", "switches", {"tool_seconds": 3.0})
    sent = documents(tmp_path, 4)
    run = finish(driver, driver.post(deployment, sent))
    everything_completed(driver, deployment, run, sent)
    ends = [end for end in events(stack, "all", "task_ended") if end["task"] == "process_file_batch"]
    outcomes = Counter(end["outcome"] for end in ends)
    assert outcomes["handed_back"] >= 2
    assert set(outcomes) == {"handed_back", "succeeded"}
    assert max(end["seconds"] for end in ends) < 10
    nothing_is_left(stack)


@pytest.mark.matrix  # every day: the storm
def test_a_backend_in_foul_weather(fleet: Fleet, tmp_path: Path) -> None:
    _, driver = fleet
    deployment = driver.deploy("foul", batches=4)
    weather = {"rate_503": 0.1, "rate_reset": 0.05, "rate_reset_after": 0.05, "seed": 7}
    driver.control("PUT", "switches", weather)
    sent = documents(tmp_path, 40)
    run = finish(driver, driver.post(deployment, sent))
    driver.control("PUT", "switches", {"reset": True})
    everything_completed(driver, deployment, run, sent)
    injected = driver.control("GET", "stats")["injected"]
    assert sum(injected.values()) > 10


def test_a_callback_that_finds_the_backend_failing_comes_again(fleet: Fleet) -> None:
    stack, driver = fleet
    made, run = pending_execution(driver, "failing")
    driver.control("PUT", "switches", {"error_500_seconds": 4.0, "error_500_path": "update_status"})
    named = {"execution_id": run.execution_id, "organization_id": made["organization_id"], "pipeline_id": None}
    publish(stack, "process_batch_callback_api", "api_file_processing_callback", [[]], named)
    assert counts(finish(driver, run, 60)) == ("COMPLETED", 0, 0, 0)
    assert "retried" in {end["outcome"] for end in events(stack, "callback", "task_ended")}


def test_a_backend_that_is_restarted_in_the_middle(start_fleet: Callable[..., Fleet], tmp_path: Path) -> None:
    stack, driver = start_fleet("api_deployment", "file_processing", "callback", LOG_LEVEL="DEBUG")
    deployment = driver.deploy("restart", batches=4)
    driver.control("PUT", "switches", {"tool_seconds": 0.5})
    sent = documents(tmp_path, 30)
    run = driver.post(deployment, sent)
    watch_until_a_file_is(driver, run, "COMPLETED")
    stack.restart("backend")
    stack.wait_until_ready()
    everything_completed(driver, deployment, finish(driver, run), sent)
    assert "retried" in {end["outcome"] for end in events(stack, "file_processing", "task_ended")}
    no_secret_is_logged(stack)


def test_a_worker_that_is_told_to_stop_hands_its_work_to_the_next(
    broker_url: str | None, start_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    stack, driver = start_fleet("api_deployment", "callback", "file_processing", broker_url=broker_url)
    deployment = driver.deploy("stopped", batches=2)
    driver.control("PUT", "switches", {"tool_seconds": 1.0})
    sent = documents(tmp_path, 6)
    run = driver.post(deployment, sent)
    watch_until_a_file_is(driver, run, "EXECUTING")
    first = stack.parts.pop("file_processing")
    os.kill(first.pid, signal.SIGTERM)
    wait_for(lambda: not alive(first.pid), 10, "the worker to stop")
    assert '"handed_back"' in first.log.read_text()
    stack.start_workers("file_processing", **QUICK)
    everything_completed(driver, deployment, finish(driver, run, 30), sent)


@pytest.mark.matrix  # every day: test_faults.py kills at six points
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_killed_worker_s_batch_is_done_by_the_next(
    pool: str, rabbitmq_url: str, start_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    stack, driver = start_fleet("api_deployment", "callback", broker_url=rabbitmq_url)
    argv = [sys.executable, "-P", "-m", "shared", "file_processing", "--pool", pool, "--concurrency", "2"]
    stack.start("first", argv, stack.environment(**QUICK))
    stack.wait_until_ready()
    deployment = driver.deploy("killed", batches=2)
    driver.control("PUT", "switches", {"tool_seconds": 0.2})
    sent = documents(tmp_path, 20)
    run = driver.post(deployment, sent)
    for seen in driver.watch(run):
        if sum(row["status"] == "COMPLETED" for row in seen.files.values()) >= 4:
            break
    os.killpg(stack.parts.pop("first").pid, signal.SIGKILL)
    stack.start("second", argv, stack.environment(**QUICK))
    everything_completed(driver, deployment, finish(driver, run), sent)
    nothing_is_left(stack)


def publish(stack: Stack, task: str, queue: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> None:
    """Send a message as another program would: Celery's defaults, none of our code."""
    with Celery(broker=stack.broker_url, fixups=[], set_as_current=False) as publisher:
        publisher.send_task(task, args=args, kwargs=kwargs, queue=queue, ignore_result=True)


def pending_execution(driver: Driver, organization: str) -> tuple[dict[str, Any], Run]:
    """An API execution that nobody has sent a message for."""
    wanted = {"organization": organization, "workflow_type": "API", "name": organization}
    made = driver.control("POST", "setup/", wanted)
    body = {
        "workflow_id": made["workflow_id"],
        "pipeline_id": made["api_deployment_id"],
        "mode": "QUEUE",
        "scheduled": False,
        "single_step": False,
        "total_files": 0,
        "log_events_id": str(uuid4()),
        "tags": [],
    }
    created = driver.internal("POST", "v1/workflow-manager/execution/create/", made["organization_id"], body)
    return made, Run(created["execution_id"])


def test_a_message_at_the_wrong_worker_reaches_the_right_one(
    broker_url: str | None, start_fleet: Callable[..., Fleet]
) -> None:
    stack, driver = start_fleet(broker_url=broker_url)
    made, run = pending_execution(driver, "wrong")
    args = [made["organization_id"], made["workflow_id"], run.execution_id, {}]
    publish(stack, "async_execute_bin", "celery", args)
    assert counts(finish(driver, run, 30)) == ("COMPLETED", 0, 0, 0)
    assert [event["queue"] for event in events(stack, "general", "message_forwarded")] == ["celery_api_deployments"]
    (started,) = events(stack, "api_deployment", "execution_started")
    assert started["execution_id"] == run.execution_id


def test_a_failed_start_is_a_failure_and_leaves_the_execution_in_error(fleet: Fleet) -> None:
    stack, driver = fleet
    made, run = pending_execution(driver, "unreadable")
    before = len(events(stack, "api_deployment", "task_ended"))
    files = {"a.pdf": {"file_name": "a.pdf", "file_size": "big"}}
    args = [made["organization_id"], made["workflow_id"], run.execution_id, files]
    publish(stack, "async_execute_bin", "celery_api_deployments", args)
    assert counts(finish(driver, run, 30)) == ("ERROR", 1, 0, 1)
    assert "files.a.pdf.file_size" in run.execution["error_message"]
    (ended,) = events(stack, "api_deployment", "task_ended")[before:]
    assert ended["outcome"] == "failed"
    nothing_is_left(stack)


def test_a_message_that_names_no_execution_fails_loudly(fleet: Fleet) -> None:
    stack, _ = fleet
    before = len(events(stack, "api_deployment", "task_ended"))
    publish(stack, "async_execute_bin", "celery_api_deployments", [])
    wait_for(lambda: len(events(stack, "api_deployment", "task_ended")) > before, 20, "the message")
    assert "missing" in events(stack, "api_deployment", "task_ended")[-1]["reason"]
    assert events(stack, "api_deployment", "message_kept")
    (kept,) = dead_letters(stack)
    assert (kept.headers["task"], kept.headers["kept_from"]) == ("async_execute_bin", "celery_api_deployments")


def dead_letters(stack: Stack) -> list[Any]:
    """Take what is kept for people, as it is."""
    found = []
    with Connection(stack.broker_url) as connection, connection.channel() as channel:
        while (message := channel.basic_get(DEAD_LETTERS)) is not None:
            channel.basic_ack(message.delivery_tag)
            found.append(message)
    return found


def test_what_no_task_can_take_is_kept_and_its_content_is_not_logged(
    broker_url: str | None, start_fleet: Callable[..., Fleet]
) -> None:
    stack, _ = start_fleet("general", broker_url=broker_url, LOG_LEVEL="DEBUG")
    publish(stack, "no.such.task", "celery", ["s3cret-content"])
    with Connection(stack.broker_url) as connection, connection.Producer() as producer:
        producer.publish({"not": "a task", "but": "s3cret-content"}, routing_key="celery")
        broken = {"task": "async_execute_bin", "id": "broken", "lang": "py"}
        json_type = {"content_type": "application/json", "content_encoding": "utf-8"}
        producer.publish("{s3cret-content", routing_key="celery", headers=broken, **json_type)
        producer.publish("s3cret-content", routing_key="celery", headers=broken, content_type="application/x-python")
        for body in ([1, "s3cret-content"], {"a": "s3cret-content"}):
            producer.publish(body, routing_key="celery", headers=broken)
        late = {**broken, "timelimit": "s3cret-content"}
        producer.publish([["s3cret-content"], {}, {}], routing_key="celery", headers=late)
    publish(stack, "async_execute_bin", "celery", ["org", "wf", "ex", {}, "one too many: s3cret-content"])
    wait_for(lambda: len(events(stack, "general", "message_kept")) >= 5, 20, "what is kept")
    wait_for(lambda: len(events(stack, "general", "task_ended")) >= 1, 20, "the task")
    kept = dead_letters(stack)
    assert len(kept) >= 5
    assert all("s3cret-content" in str(message.body) for message in kept)
    assert all(message.headers["kept_because"] for message in kept)
    assert "s3cret-content" not in stack.parts["general"].log.read_text()
    stack.check()


@pytest.mark.parametrize("profiles", [FOUR, ("all",)], ids=["four", "all"])
def test_an_etl_pipeline_fills_its_table(
    profiles: tuple[str, ...], start_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    stack, driver = start_fleet(*profiles)
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    documents(source, 3)
    documents(source / "below", 2)
    (source / "empty.txt").touch()
    made = driver.control(
        "POST",
        "setup/",
        {
            "organization": "etl",
            "workflow_type": "ETL",
            "name": "etl",
            "source_folder": str(source),
            "destination_table": "notes",
            "max_parallel_file_batches": 2,
        },
    )
    run = finish(driver, driver.start_pipeline(made))
    assert counts(run) == ("COMPLETED", 6, 5, 1)
    stats = driver.control("GET", "stats")
    assert stats["destination_rows"] == 5
    assert stats["tool_runs"]["max"] == 1
    pipeline = driver.internal("GET", f"v1/pipeline/{made['pipeline_id']}/", made["organization_id"])
    assert pipeline["pipeline"]["last_run_status"] == "SUCCESS"
    nothing_is_left(stack)


def test_a_batch_of_another_publisher_is_processed(fleet: Fleet, tmp_path: Path) -> None:
    """`file-batch/submit/` and old orchestrators send batches that no fan-in of ours waits for."""
    stack, driver = fleet
    deployment = driver.deploy("foreign", batches=1)
    run = finish(driver, driver.post(deployment, documents(tmp_path, 1)))
    (row,) = run.files.values()
    batch = {
        "files": [{"file_name": "note-0000.txt", "source_connection_type": "API", "a_new_field": 1}],
        "file_data": {
            "workflow_id": deployment.workflow_id,
            "execution_id": run.execution_id,
            "organization_id": deployment.organization_id,
        },
    }
    before = len(events(stack, "file_processing", "task_ended"))
    callbacks = len(events(stack, "callback", "task_ended"))
    name = "workflow_manager.workflow_v2.file_execution_tasks.process_file_batch"
    publish(stack, name, "file_processing", [batch])
    wait_for(lambda: len(events(stack, "file_processing", "task_ended")) > before, 20, "the batch")
    ended = events(stack, "file_processing", "task_ended")[-1]
    assert (ended["outcome"], ended["task"]) == ("succeeded", name)
    assert len(events(stack, "callback", "task_ended")) == callbacks
    assert row["status"] == "COMPLETED"
