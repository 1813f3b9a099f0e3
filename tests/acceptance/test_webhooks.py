"""Webhooks and log lines through worker processes and the reference backend."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.driver import Driver
from sandbox.stack import Stack, wait_for
from tests.acceptance.conftest import QUICK, Fleet
from tests.acceptance.test_command_line import workers_of
from tests.acceptance.test_executions import dead_letters, events, pending_execution, publish

pytestmark = pytest.mark.timeout(240)
SECRET = "s3cret-of-theirs"
SAID = ["unseen", "seen"]


@pytest.fixture
def general(broker_url: str | None, start_fleet: Callable[..., Fleet]) -> Fleet:
    """The general worker alone, on each broker."""
    return start_fleet("general", broker_url=broker_url, LOG_LEVEL="DEBUG")


def hook(stack: Stack, name: str) -> str:
    return f"{stack.backend_url}/sandbox/hooks/{name}/"


def hear(stack: Stack, driver: Driver, **webhooks: dict[str, Any]) -> tuple[str, str]:
    """An execution that has ended, and an event of it for each of these webhooks of its deployment, by hook."""
    made, run = pending_execution(driver, "listening")
    wanted = {
        "organization": "listening",
        "workflow_type": "API",
        "name": "listening",
        "notifications": [{"url": hook(stack, name), **said} for name, said in webhooks.items()],
    }
    made = driver.control("POST", "setup/", wanted)
    for (_, said), notification_id in zip(webhooks.items(), made["notification_ids"], strict=True):
        event = {
            "notification_id": notification_id,
            "type": "API",
            "execution_id": run.execution_id,
            "pipeline_id": made["api_deployment_id"],
            "pipeline_name": "<listening>",
            "status": "COMPLETED",
            "platform": said.get("platform", "API"),
        }
        driver.internal("POST", "v1/webhook/buffer/enqueue/", made["organization_id"], event)
    return made["organization_id"], run.execution_id


def in_state(driver: Driver, state: str, count: int) -> Callable[[], bool]:
    return lambda: driver.control("GET", "stats")["notifications"].get(state) == count


def rounds(stack: Stack) -> int:
    return sum(end["task"] == "process_notification_buffer" for end in events(stack, "general", "task_ended"))


def nothing_of_theirs_is_logged(stack: Stack) -> None:
    log = stack.parts["general"].log.read_text()
    assert "task_ended" in log
    for secret in (SECRET, "/sandbox/hooks/", "<listening>", stack.key):
        assert secret not in log


def test_events_are_delivered_once_and_marked(general: Fleet) -> None:
    stack, driver = general
    bearer = {"authorization_type": "BEARER", "authorization_key": SECRET}
    _, execution_id = hear(stack, driver, api=bearer, slack={"platform": "SLACK"}, gone={"max_retries": 3, **bearer})
    driver.control("PUT", "hooks/gone/", {"status": 410})
    publish(stack, "process_notification_buffer", "notifications", [])
    wait_for(in_state(driver, "DISPATCHED", 2), 30, "two deliveries")
    wait_for(in_state(driver, "DEAD_LETTER", 1), 30, "one that is given up")
    publish(stack, "process_notification_buffer", "notifications", [])
    wait_for(lambda: rounds(stack) == 2, 30, "the second round")
    assert driver.control("GET", "stats")["webhooks"] == {"deliveries": 3, "keys": 3, "repeated": 0}
    found = driver.control("GET", "hooks/")
    (api,), (slack,) = (found[name]["received"] for name in ("api", "slack"))
    assert api["headers"]["Authorization"] == f"Bearer {SECRET}"
    assert json.loads(api["body"])["execution_id"] == execution_id
    assert json.loads(slack["body"])["text"] == "&lt;listening&gt;: COMPLETED"
    (kept,) = dead_letters(stack)
    assert kept.headers["kept_because"] == "a webhook's receiver, 127.0.0.1, answered 410"
    nothing_of_theirs_is_logged(stack)


def test_what_fails_is_sent_again_with_its_key(general: Fleet) -> None:
    stack, driver = general
    driver.control("PUT", "hooks/weak/", {"status": 503, "failures": 2})
    body = {"url": hook(stack, "weak"), "payload": {"text": SECRET}, "max_retries": 3, "retry_delay": 0}
    driver.internal("POST", "v1/webhook/send/", "org", body)
    wait_for(lambda: bool(events(stack, "general", "webhook_delivered")), 30, "the third send")
    assert driver.control("GET", "stats")["webhooks"] == {"deliveries": 3, "keys": 1, "repeated": 0}
    nothing_of_theirs_is_logged(stack)


def test_a_send_that_dies_in_the_middle_is_repeated_with_its_key(
    rabbitmq_url: str, start_fleet: Callable[..., Fleet]
) -> None:
    quick = {"LEASE_SECONDS": "3"}
    stack, driver = start_fleet("general", broker_url=rabbitmq_url, **quick)
    driver.control("PUT", "hooks/slow/", {"delay_seconds": 3})
    driver.internal("POST", "v1/webhook/send/", "org", {"url": hook(stack, "slow"), "payload": {"a": 1}})
    wait_for(lambda: driver.control("GET", "stats")["webhooks"]["deliveries"] == 1, 30, "the first send")
    os.killpg(stack.parts.pop("general").pid, signal.SIGKILL)
    stack.start_workers("general", **QUICK, **quick)
    wait_for(lambda: bool(events(stack, "general", "webhook_delivered")), 60, "the second send")
    assert driver.control("GET", "stats")["webhooks"] == {"deliveries": 2, "keys": 1, "repeated": 1}


def test_a_redirect_into_our_own_network_is_refused(start_fleet: Callable[..., Fleet]) -> None:
    stack, driver = start_fleet("general", WEBHOOK_ALLOWED_NETWORKS="127.0.0.1/32")
    port = stack.backend_url.rpartition(":")[2]
    driver.control("PUT", "hooks/sly/", {"status": 307, "location": f"http://127.0.0.2:{port}/internal/v1/health/"})
    driver.internal("POST", "v1/webhook/send/", "org", {"url": hook(stack, "sly"), "payload": {"a": 1}})
    wait_for(lambda: bool(events(stack, "general", "message_kept")), 30, "the refusal")
    assert "127.0.0.2 is not a public one" in events(stack, "general", "message_kept")[0]["reason"]


def test_a_log_line_is_in_the_database_though_nobody_could_be_shown_it(general: Fleet) -> None:
    stack, driver = general
    made, run = pending_execution(driver, "logging")
    driver.control("PUT", "switches", {"error_500_seconds": 60.0, "error_500_path": "emit-websocket"})

    def write(text: str, **more: Any) -> None:
        data = {"log": f"{text} {SECRET}"}
        message = {"organization_id": made["organization_id"], "timestamp": 1.5, "type": "LOG", "data": data, **more}
        line = {"event": "logs:s1", "message": message, "user_session_id": "s1"}
        publish(stack, "logs_consumer", "celery_log_task_queue", [], line)

    def written() -> list[dict[str, Any]]:
        publish(stack, "process_log_history", "celery_periodic_logs", [])
        found: list[dict[str, Any]] = driver.control("GET", f"executions/{run.execution_id}/?logs=true")["logs"]
        return found

    write("unseen", execution_id=run.execution_id)
    wait_for(lambda: bool(events(stack, "general", "log_emission_dropped")), 30, "the failing emission")
    wait_for(lambda: len(written()) == 1, 30, "the record")
    assert driver.control("GET", "stats")["emissions"] == 0
    driver.control("PUT", "switches", {"reset": True})
    write("seen", execution_id=run.execution_id)
    write("of no execution")
    wait_for(lambda: driver.control("GET", "stats")["emissions"] == 2, 30, "two emissions")
    wait_for(lambda: len(written()) == 2, 30, "the second record")
    assert [line["data"]["log"].split()[0] for line in written()] == SAID
    assert {line["event_time"] for line in written()} == {"1.5"}
    ran = workers_of(stack, "logs", run.execution_id, "--json")
    shown = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [(line["timestamp"], line["text"]) for line in shown] == [(1.5, f"{text} {SECRET}") for text in SAID]
    nothing_of_theirs_is_logged(stack)
