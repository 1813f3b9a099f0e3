"""What belongs to an execution besides its files: requests, history, notifications, schedules, orphans."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sandbox.driver import Deployment, Driver, Run
from sandbox.stack import Stack, wait_for
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import (
    counts,
    documents,
    events,
    everything_completed,
    finish,
    nothing_is_left,
    pending_execution,
    publish,
)

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(("files", "most"), [(2, 14), (5, 23)])
def test_a_run_takes_few_requests(fleet: Fleet, tmp_path: Path, files: int, most: int) -> None:
    stack, driver = fleet
    deployment = driver.deploy("frugal", batches=2)
    sent = documents(tmp_path, files)
    run = finish(driver, driver.post(deployment, sent))
    everything_completed(driver, deployment, run, sent)
    nothing_is_left(stack)
    asked = driver.control("GET", "stats")
    assert asked["http_requests"] <= most, asked["requests"]


def test_what_the_history_has_is_a_result_already(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    deployment = driver.deploy("remembering", batches=2)
    first, second = documents(tmp_path, 2), documents(tmp_path, 3)
    run = finish(driver, driver.post(deployment, first, use_file_history="true"))
    everything_completed(driver, deployment, run, first)
    before = driver.control("GET", "stats")
    assert before["requests"]["POST v1/workflow-manager/file-history/check-batch/"] == 1
    assert before["requests"]["POST v1/file-history/create/"] == 2
    assert before["http_requests"] <= 14 + 1 + 2
    driver.control("DELETE", "stats")
    run = finish(driver, driver.post(deployment, second, use_file_history="true"))
    everything_completed(driver, deployment, run, second)
    after = driver.control("GET", "stats")
    assert after["tool_runs"]["total"] == 1
    assert after["requests"]["POST v1/file-history/create/"] == 1
    assert events(stack, "api_deployment", "execution_started")[-1]["from_history"] == 2
    nothing_is_left(stack)


def listening(stack: Stack, driver: Driver, tmp_path: Path, kind: str, name: str) -> tuple[dict[str, Any], Deployment]:
    """A workflow whose executions two webhooks hear of, one of them of failures only."""
    hook = f"{stack.backend_url}/sandbox/hooks/{name}"
    wanted = {
        "organization": name,
        "workflow_type": kind,
        "name": name,
        "source_folder": str(tmp_path),
        "destination_table": name,
        "notifications": [{"url": f"{hook}/"}, {"url": f"{hook}-failures/", "notify_on_failures": True}],
    }
    made = driver.control("POST", "setup/", wanted)
    return made, Deployment(**{slot: made.get(slot, "") for slot in Deployment.__slots__})


def heard(driver: Driver, name: str) -> list[dict[str, Any]]:
    received = driver.control("GET", "hooks/").get(name, {"received": []})["received"]
    return [json.loads(item["body"]) for item in received]


def test_an_end_is_told_once_and_a_failure_to_those_for_failures_too(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    made, deployment = listening(stack, driver, tmp_path, "API", "listening")
    good, bad = documents(tmp_path, 1), tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-1.4 and nothing else")
    ended = [finish(driver, driver.post(deployment, sent)) for sent in (good, {"bad.pdf": bad})]
    assert [counts(run)[0] for run in ended] == ["COMPLETED", "ERROR"]
    publish(stack, "process_notification_buffer", "notifications", [])
    # Clubbed: one webhook for the events of each address.
    wait_for(lambda: bool(heard(driver, "listening") and heard(driver, "listening-failures")), 30, "both webhooks")
    (told,), (failure,) = heard(driver, "listening"), heard(driver, "listening-failures")
    assert [event["execution_id"] for event in told["notifications"]] == [run.execution_id for run in ended]
    assert [event["status"] for event in told["notifications"]] == ["COMPLETED", "ERROR"]
    assert (failure["execution_id"], failure["total_files"], failure["failed_files"]) == (ended[1].execution_id, 1, 1)
    assert failure["idempotency_key"] == f"{ended[1].execution_id}:{made['notification_ids'][1]}"
    assert "all 1 files failed" in failure["error_message"]
    assert driver.control("GET", "stats")["notifications"]["duplicates"] == 0


def test_without_a_buffer_the_webhooks_are_sent_by_us(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    driver.control("PUT", "switches", {"without_buffer": True})
    made, deployment = listening(stack, driver, tmp_path, "API", "unbuffered")
    run = finish(driver, driver.post(deployment, documents(tmp_path, 1)))
    wait_for(lambda: bool(heard(driver, "unbuffered")), 30, "the webhook")
    (told,) = heard(driver, "unbuffered")
    assert (told["execution_id"], told["status"]) == (run.execution_id, "COMPLETED")
    (received,) = driver.control("GET", "hooks/")["unbuffered"]["received"]
    assert received["key"] == f"{run.execution_id}:{made['notification_ids'][0]}"


def scheduled(made: dict[str, Any]) -> list[Any]:
    return ["", made["organization_id"], "", "", made["pipeline_id"], True, "a pipeline"]


def executions(driver: Driver, made: dict[str, Any]) -> list[dict[str, Any]]:
    path = f"v1/workflow-execution/?workflow_id={made['workflow_id']}"
    while True:
        with suppress(httpx.TransportError):  # the weather is for all
            found: Any = driver.internal("GET", path, made["organization_id"])
            return list(found)


def test_a_scheduled_pipeline_runs_and_the_next_time_finds_nothing_new(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    documents(tmp_path, 3)
    made, _ = listening(stack, driver, tmp_path, "ETL", "scheduled")
    before = driver.control("GET", "stats")["destination_rows"]
    for number, files in ((1, 3), (2, 0)):
        publish(stack, "scheduler.tasks.execute_pipeline_task", "celery", scheduled(made))
        wait_for(partial(are, driver, made, number), 30, "the execution")
        run = finish(driver, Run(executions(driver, made)[0]["id"]))
        assert counts(run) == ("COMPLETED", files, files, 0)
        assert executions(driver, made)[0]["execution_method"] == "SCHEDULED"
    path = f"v1/pipeline/{made['pipeline_id']}/"
    wait_for(lambda: status_of(driver, made, path) == "SUCCESS", 20, "the pipeline's status")
    assert driver.control("GET", "stats")["destination_rows"] == before + 3
    nothing_is_left(stack)


def are(driver: Driver, made: dict[str, Any], number: int) -> bool:
    return len(executions(driver, made)) == number


def status_of(driver: Driver, made: dict[str, Any], path: str) -> str:
    return str(driver.internal("GET", path, made["organization_id"])["pipeline"]["last_run_status"])


def test_a_pipeline_that_is_not_active_or_not_there_is_not_started(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    wanted = {"organization": "resting", "workflow_type": "ETL", "name": "resting", "source_folder": str(tmp_path)}
    made = driver.control("POST", "setup/", {**wanted, "active": False})
    before = len(events(stack, "general", "pipeline_not_started"))
    for pipeline_id in (made["pipeline_id"], str(uuid4())):
        publish(
            stack, "scheduler.tasks.execute_pipeline_task", "scheduler", scheduled({**made, "pipeline_id": pipeline_id})
        )
    wait_for(lambda: len(events(stack, "general", "pipeline_not_started")) == before + 2, 20, "both messages")
    assert executions(driver, made) == []


def test_a_message_that_overtakes_its_execution_waits_for_it(fleet: Fleet, tmp_path: Path) -> None:
    """A backend sends it inside the transaction that makes the execution."""
    stack, driver = fleet
    deployment = driver.deploy("overtaken", batches=1)
    driver.control("PUT", "switches", {"late_commit_seconds": 2.0})
    before = len(events(stack, "api_deployment", "task_ended"))
    sent = documents(tmp_path, 2)
    run = finish(driver, driver.post(deployment, sent))
    everything_completed(driver, deployment, run, sent)
    ended = [end["outcome"] for end in events(stack, "api_deployment", "task_ended")[before:]]
    assert (ended[0], ended[-1]) == ("retried", "succeeded")
    nothing_is_left(stack)


def test_a_lost_answer_creates_no_second_execution(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    documents(tmp_path, 1)
    made, _ = listening(stack, driver, tmp_path, "ETL", "unsure")
    driver.control("PUT", "switches", {"rate_reset_after": 0.5, "seed": 3})
    for _ in range(5):
        publish(stack, "scheduler.tasks.execute_pipeline_task", "celery", scheduled(made))
    wait_for(lambda: ended(driver, made) >= 1, 60, "the first end")
    driver.control("PUT", "switches", {"reset": True})
    wait_for(lambda: ended(driver, made) == len(executions(driver, made)), 60, "the end of all")
    assert 1 <= len(executions(driver, made)) <= 5
    assert driver.control("GET", "stats")["tool_runs"] | {"more_than_once": {}} == {
        "files": 1,
        "total": 1,
        "max": 1,
        "more_than_once": {},
    }


def ended(driver: Driver, made: dict[str, Any]) -> int:
    return sum(row["status"] in {"COMPLETED", "ERROR"} for row in executions(driver, made))


def test_two_runs_of_a_pipeline_that_overlap_take_each_file_once(fleet: Fleet, tmp_path: Path) -> None:
    stack, driver = fleet
    documents(tmp_path, 6)
    made, _ = listening(stack, driver, tmp_path, "ETL", "overlapping")
    before = driver.control("GET", "stats")["destination_rows"]
    driver.control("PUT", "switches", {"tool_seconds": 0.5})
    runs = [driver.start_pipeline(made) for _ in range(2)]
    ends = sorted(counts(finish(driver, run)) for run in runs)
    assert ends == [("COMPLETED", 0, 0, 0), ("COMPLETED", 6, 6, 0)]
    left_out = next(run for run in runs if not run.execution["total_files"])
    other = next(run for run in runs if run.execution["total_files"])
    assert f"execution {other.execution_id} has it" in left_out.execution["error_message"]
    assert driver.control("GET", "stats")["destination_rows"] == before + 6
    nothing_is_left(stack)


def orphans(stack: Stack, *arguments: str, **settings: str) -> str:
    command = [str(Path(sys.executable).with_name("workers")), "check", "--orphans", *arguments]
    ran = subprocess.run(
        command, env=stack.environment(**settings), capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_executions_that_nobody_knows_are_found_and_ended_once(start_fleet: Callable[..., Fleet]) -> None:
    stack, driver = start_fleet("callback", REAPER_INTERVAL_SECONDS="0.5", STALL_SECONDS="1")
    made, run = pending_execution(driver, "orphaned")
    place = (made["organization_id"], made["workflow_id"])
    assert "may be on its way" in orphans(stack, *place)
    old = {"STALL_SECONDS": "1"}
    wait_for(lambda: "handed to the reaper" in orphans(stack, *place, **old), 20, "its age")
    assert counts(finish(driver, run, 30)) == ("ERROR", 0, 0, 0)
    assert "its message was lost" in run.execution["error_message"]
    assert "0 open executions" in orphans(stack, *place, **old)
    assert len(events(stack, "callback", "execution_ended")) == 1
    nothing_is_left(stack)
