"""The kick-off, over the fakes: whose it is, what it refuses, and that every way out reaches the callback."""

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from config.queue_routing import DEAD_LETTERS
from config.workers import PROFILES
from shared.entry import async_execute_bin
from shared.errors import (
    BackendRefusedError,
    BackendUnavailableError,
    BrokerError,
    OrchestrationError,
    PayloadError,
    UnauthorizedError,
    WorkerError,
)
from shared.models import FileHash
from tests.fakes import FakeApp, FakeBackend, settings

run, finalizer = async_execute_bin.function, async_execute_bin.finalizer
FILES = {f"{name}.txt": {"file_name": f"{name}.txt", "file_size": 3, "added_later": 1} for name in "abc"}
API_QUEUE = "celery_api_deployments"


def start(app: FakeApp, files: Any = None, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = run(
        app.call("async_execute_bin", queue=API_QUEUE), "org", "wf", "ex", files or FILES, **options
    )
    return answer


def test_an_api_execution_is_fanned_out_in_the_backends_number_of_batches() -> None:
    app = FakeApp(backend=FakeBackend(batches=2))
    with capture_logs() as logs:
        answer = start(app, pipeline_id="api", not_known_yet=True, call="x", scheduled=None, transport=None)
    assert [line["names"] for line in logs if line["event"] == "unknown_arguments"] == [["call", "not_known_yet"]]
    assert (answer["status"], answer["files_processed"], answer["batches_created"]) == ("orchestrated", 3, 2)
    assert answer["chord_id"] == "ex"
    assert app.backend.calls == [
        "execution",
        "tool_instances",
        "validate_tools",
        "start_execution",
        "configuration",
    ]
    assert (app.backend.status, app.backend.total_files) == ("EXECUTING", 3)
    assert [sent.queue for sent in app.sent] == ["api_file_processing"] * 2
    assert app.sent[0].args[0]["files"][0][1]["added_later"] == 1


def test_an_etl_execution_takes_its_files_from_the_backend() -> None:
    source = {"in/x.pdf": FileHash(file_name="x.pdf"), "in/y.pdf": FileHash(file_name="y.pdf")}
    app = FakeApp(backend=FakeBackend(is_api=False, source=source))
    answer = start(app, files={})
    assert answer["files_processed"] == 2
    (sent,) = app.sent
    assert sent.queue == "file_processing"
    assert app.state.fan_ins["ex"].callback_task == "process_batch_callback"


@pytest.mark.parametrize("value", [None, "4", 0, -1])
def test_an_unusable_configuration_falls_back_to_the_environment(value: Any) -> None:
    app = FakeApp(backend=FakeBackend(batches=value), settings=settings(MAX_PARALLEL_FILE_BATCHES="3"))
    assert start(app)["batches_created"] == 3


@pytest.mark.parametrize("error", [BackendRefusedError("404", 404), BackendUnavailableError("500")])
def test_a_configuration_that_is_not_to_be_had_falls_back_too(error: WorkerError) -> None:
    app = FakeApp()
    app.backend.refusals["configuration"] = error
    assert start(app)["batches_created"] == 1


@pytest.mark.parametrize("status", ["COMPLETED", "ERROR", "STOPPED"])
def test_a_terminal_execution_is_left_alone(status: str) -> None:
    app = FakeApp(backend=FakeBackend(status=status))
    assert start(app)["status"] == "skipped"
    assert app.backend.calls == ["execution"]
    assert app.sent == []


def forwarded(queue: str) -> float:
    labels = {"task": "async_execute_bin", "queue": queue}
    return REGISTRY.get_sample_value("workers_messages_forwarded_total", labels) or 0.0


@pytest.mark.parametrize(
    ("profile", "is_api", "queue"), [("general", True, API_QUEUE), ("api_deployment", False, "celery")]
)
def test_a_message_at_the_wrong_worker_is_sent_on_once(profile: str, is_api: bool, queue: str) -> None:
    app = FakeApp(profile=PROFILES[profile], backend=FakeBackend(is_api=is_api))
    call = app.call("async_execute_bin", queue="where it came")
    before = forwarded(queue)
    assert run(call, "org", "wf", "ex", FILES, pipeline_id="p", unknown=1)["status"] == "forwarded"
    assert forwarded(queue) == before + 1
    (sent,) = app.sent
    assert (sent.task, sent.queue, sent.args) == ("async_execute_bin", queue, ["org", "wf", "ex", FILES])
    assert sent.kwargs == {"pipeline_id": "p", "unknown": 1}
    with pytest.raises(OrchestrationError, match="forwarded"):
        run(app.call("async_execute_bin", queue=queue, **sent.headers), "org", "wf", "ex", FILES)
    assert len(app.sent) == 1


def test_tools_that_are_not_valid_are_said_so() -> None:
    app = FakeApp()
    app.backend.refusals["validate_tools"] = BackendRefusedError("tool 1 has no key", 422)
    with pytest.raises(OrchestrationError, match="tool 1 has no key"):
        start(app)


def test_tools_that_are_not_valid_without_a_reason_are_an_end_too() -> None:
    with pytest.raises(OrchestrationError, match="does not say why"):
        start(FakeApp(backend=FakeBackend(tools_are_valid=False)))


def test_a_refusal_that_is_not_about_the_tools_is_told_as_what_it_is() -> None:
    app = FakeApp()
    app.backend.refusals["validate_tools"] = UnauthorizedError("the key was rotated", 401)
    with pytest.raises(UnauthorizedError):
        start(app)


def test_an_outage_goes_up_to_be_retried() -> None:
    app = FakeApp()
    app.backend.refusals["execution"] = BackendUnavailableError("away")
    with pytest.raises(BackendUnavailableError):
        start(app)


@pytest.mark.parametrize("files", [{"a": {}}, {"a": {"file_name": 1}}, {"a": None}])
def test_files_that_cannot_be_read_are_refused(files: Any) -> None:
    with pytest.raises(PayloadError, match=r"files\.a"):
        start(FakeApp(), files=files)


@pytest.mark.parametrize(
    ("queue", "task"), [(API_QUEUE, "process_batch_callback_api"), ("celery", "process_batch_callback")]
)
def test_a_failed_start_keeps_its_reason_and_sends_the_callback(queue: str, task: str) -> None:
    app = FakeApp()
    finalizer(app.call(queue=queue), OrchestrationError("no tools"), "org", "wf", "ex", None, pipeline_id="p")
    assert app.state.failure("ex") == "no tools"
    (sent,) = app.sent
    assert (sent.task, sent.args) == (task, [[]])
    assert sent.kwargs == {"execution_id": "ex", "organization_id": "org", "pipeline_id": "p"}


def test_a_failed_duplicate_ends_nothing_of_what_another_message_started() -> None:
    app = FakeApp()
    start(app)
    app.sent.clear()
    duplicate = replace(app.call("async_execute_bin", queue=API_QUEUE), task_id="another")
    finalizer(duplicate, PayloadError("nonsense"), "org", "wf", "ex", "garbage")
    (kept,) = app.sent
    assert (kept.queue, app.state.failure("ex")) == (DEAD_LETTERS, None)
    finalizer(app.call("async_execute_bin", queue=API_QUEUE), BrokerError("away"), "org", "wf", "ex", FILES)
    assert app.state.failure("ex") == "away"


@pytest.mark.parametrize("args", [(), ("org", "wf"), ("org", "", "ex"), (1, 2, 3)])
def test_a_message_that_names_no_execution_is_kept_for_people(args: tuple[Any, ...]) -> None:
    app = FakeApp()
    finalizer(app.call("async_execute_bin", queue="celery"), PayloadError("nonsense"), *args, extra=1)
    (kept,) = app.sent
    assert (kept.task, kept.queue, kept.args, kept.kwargs) == ("async_execute_bin", DEAD_LETTERS, [*args], {"extra": 1})
    assert kept.headers == {"kept_from": "celery", "kept_because": "nonsense"}
