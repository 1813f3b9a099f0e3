"""The kick-off, over the fakes: whose it is, what it refuses, and that every way out reaches the callback."""

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.queue_routing import DEAD_LETTERS
from config.workers import PROFILES
from monitoring.registry import KEPT
from shared.backend_models import History
from shared.entry import async_execute_bin
from shared.errors import (
    BackendRefusedError,
    BackendUnavailableError,
    NotFoundError,
    OrchestrationError,
    PayloadError,
    TransientError,
    UnauthorizedError,
    WorkerError,
)
from shared.execution_state import Run
from shared.models import FileHash
from tests.fakes import FakeApp, FakeBackend, settings

run, finalizer = async_execute_bin.function, async_execute_bin.finalizer
FILES = {f"{name}.txt": {"file_name": f"{name}.txt", "file_size": 3, "added_later": 1} for name in "abc"}
API_QUEUE = "celery_api_deployments"


def start(app: FakeApp, files: Any = None, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = run(
        app.call("async_execute_bin", queue=API_QUEUE), "org", "wf", "ex", FILES if files is None else files, **options
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
    known = app.state.run("ex")
    assert known is not None
    assert (known.is_api, known.batches, known.files) == (False, 1, 2)


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


def test_a_message_that_overtook_its_execution_looks_for_it_again_for_seconds() -> None:
    app = FakeApp()
    app.backend.refusals["execution"] = NotFoundError("no such execution", 404)
    for seconds, error in ((0, TransientError), (9, TransientError), (10, NotFoundError)):
        call = app.call("async_execute_bin", queue=API_QUEUE, first_tried=time.time() - seconds)
        with pytest.raises(error, match="no such execution") as raised:
            run(call, "org", "wf", "ex", FILES)
        assert type(raised.value) is error


def forwarded(queue: str) -> float:
    return KEPT.value("workers_messages_forwarded_total", name="async_execute_bin", queue_name=queue)


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
    assert app.state.known("ex").failure == ("no tools", 0)
    (sent,) = app.sent
    assert (sent.task, sent.args) == (task, [[]])
    assert sent.kwargs == {"execution_id": "ex", "organization_id": "org", "pipeline_id": "p"}


def test_a_failed_start_counts_the_files_it_was_sent() -> None:
    app = FakeApp()
    finalizer(app.call(queue=API_QUEUE), OrchestrationError("no tools"), "org", "wf", "ex", FILES)
    assert app.state.known("ex").failure == ("no tools", 3)


def test_the_work_of_a_kick_off_is_its_executions_whatever_message_it_is() -> None:
    app = FakeApp()
    claim = async_execute_bin.work(app.call(), "org", "wf", "ex", {})
    assert claim == app.state.claim("ex", "orchestration")
    nobodys: list[tuple[Any, ...]] = [(), ("a", "b"), ("a", "b", ""), (1, 2, 3)]
    assert [async_execute_bin.work(app.call(), *args) for args in nobodys] == [None] * 4


def test_a_redelivery_sends_what_was_planned_and_asks_for_nothing_again() -> None:
    app = FakeApp(backend=FakeBackend(batches=3))
    start(app, pipeline_id="api")
    first = [(sent.headers, [item[0] for item in sent.args[0]["files"]]) for sent in app.sent]
    app.sent.clear()
    app.backend.calls.clear()
    answer = start(app, files={"changed.txt": {"file_name": "changed.txt"}}, pipeline_id="api")
    assert [(sent.headers, [item[0] for item in sent.args[0]["files"]]) for sent in app.sent] == first
    assert app.backend.calls == ["execution"]
    assert (answer["files_processed"], answer["batches_created"]) == (3, 3)


def test_files_that_the_history_has_are_results_already() -> None:
    hashed = {name: {"file_name": name, "file_hash": f"hash-{name}"} for name in ("a.txt", "b.txt", "c.txt")}
    app = FakeApp()
    app.backend.histories = {
        "hash-a.txt": History(status="COMPLETED", result='{"text": "remembered"}'),
        "hash-b.txt": History(status="COMPLETED", result=""),
    }
    answer = start(app, files=hashed, use_file_history=True)
    assert (answer["files_from_cache"], answer["files_processed"]) == (1, 2)
    assert answer["cached_results"] == {"a.txt": "COMPLETED"}
    assert app.backend.calls.count("file_histories") == 1
    assert app.backend.total_files == 3
    assert app.state.cached("ex", "hash-a.txt") == {"result": '{"text": "remembered"}'}


def test_without_the_flag_or_without_hashes_the_history_is_not_asked() -> None:
    hashed = {"a": {"file_name": "a", "file_hash": "h"}}
    for wanted, files in ((False, hashed), (True, FILES)):
        app = FakeApp()
        start(app, files=files, use_file_history=wanted)
        assert "file_histories" not in app.backend.calls


def test_a_history_too_large_for_one_answer_is_asked_for_in_parts() -> None:
    hashed = {name: {"file_name": name, "file_hash": name} for name in "abcde"}
    histories = {name: History(status="COMPLETED", result="text") for name in "abcde"}
    for most, found in ((1, 5), (0, 0)):
        app = FakeApp(backend=FakeBackend(histories=histories, most_histories=most))
        assert start(app, files=hashed, use_file_history=True)["files_from_cache"] == found


def etl(*names: str) -> FakeApp:
    source = {
        f"in/{name}": FileHash(file_name=name, file_path=f"in/{name}", provider_file_uuid=f"etag-{name}")
        for name in names
    }
    return FakeApp(backend=FakeBackend(is_api=False, source=source))


def test_files_of_other_executions_are_left_out_and_it_is_said_who_has_them() -> None:
    app = etl("free.txt", "active.txt", "held.txt", "mine.txt")
    app.backend.active = ["etag-active.txt:in/active.txt"]
    app.state.register(Run("other", "org", "wf", None, is_api=False))
    app.state.reservations.reserve("wf", "other", ["etag-held.txt:in/held.txt"], 60)
    app.state.reservations.reserve("wf", "ex", ["etag-mine.txt:in/mine.txt"], 60)
    assert start(app, files={})["files_processed"] == 2
    names = [item[0] for sent in app.sent for item in sent.args[0]["files"]]
    assert names == ["free.txt", "mine.txt"]
    assert app.state.known("ex").skipped == {
        "active.txt": "another execution is processing it",
        "held.txt": "execution other has it",
    }
    assert app.backend.total_files == 2


def test_a_source_is_listed_again_if_files_were_given_back_meanwhile() -> None:
    """They may have been done in between, and are in the history now."""
    app = etl("a.txt", "b.txt")
    app.state.register(Run("other", "org", "wf", None, is_api=False))
    app.state.reservations.reserve("wf", "other", ["etag-a.txt:in/a.txt"], 60)

    def other_ends(name: str) -> None:
        if name == "active_files" and "active_files" not in app.backend.calls:
            del app.backend.source["in/a.txt"]
            app.state.reservations.release("wf", "other")

    app.backend.on_call = other_ends
    assert start(app, files={})["files_processed"] == 1
    assert app.backend.calls.count("source_files") == 2
    assert [item[0] for sent in app.sent for item in sent.args[0]["files"]] == ["b.txt"]


@pytest.mark.parametrize("args", [(), ("org", "wf"), ("org", "", "ex"), (1, 2, 3)])
def test_a_message_that_names_no_execution_is_kept_for_people(args: tuple[Any, ...]) -> None:
    app = FakeApp()
    finalizer(app.call("async_execute_bin", queue="celery"), PayloadError("nonsense"), *args, extra=1)
    (kept,) = app.sent
    assert (kept.task, kept.queue, kept.args, kept.kwargs) == ("async_execute_bin", DEAD_LETTERS, [*args], {"extra": 1})
    assert kept.headers == {"kept_from": "celery", "kept_because": "nonsense"}
