"""What the log says of a delivery, and what goes on with it: under the real seam, in a real worker on a real broker."""

import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest
import structlog
from celery.contrib.testing.worker import start_worker

from sandbox.stack import wait_for
from shared.call import Call, WorkerApp
from shared.celery_app import build_app
from shared.errors import AlreadyDone, BackendUnavailableError, HandBack, PayloadError
from shared.logging_utils import bind_context, get_logger, inner_context, with_context
from shared.passage import http_headers
from shared.task import task
from tests.fakes import one_worker, settings
from tests.integration.test_task_seam import Script, Unreachable

QUEUE = "lines"
TIMES = {"TASK_DEADLINE_SECONDS": "1", "BATCH_SLICE_SECONDS": "1", "INTERNAL_API_TIMEOUT": "0.5"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01", "tracestate": "vendor=opaque,other=1"}
log = get_logger(__name__)


@pytest.fixture(scope="module")
def worker(redis_url: str) -> Iterator[tuple[WorkerApp, Script]]:
    """A worker in this process with one slot, whose one task follows a script."""
    script = Script()

    def scripted(call: Call, *args: Any, **_kwargs: Any) -> Any:
        return script.run(call, *args)

    module = ModuleType("lines_tasks")
    vars(module)["scripted"] = task("lines", finalizer=script.finalize, patience=1.5)(scripted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "lines_tasks", module)
        app = build_app(one_worker("lines", "lines_tasks", QUEUE), settings(**TIMES, CELERY_BROKER_URL=redis_url))
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
            yield app, script


@pytest.fixture
def app(worker: tuple[WorkerApp, Script]) -> WorkerApp:
    return worker[0]


@pytest.fixture
def script(worker: tuple[WorkerApp, Script]) -> Script:
    worker[1].deliveries.clear()
    return worker[1]


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Every line of ours, with the context that it was written in."""
    with structlog.testing.capture_logs(processors=[with_context]) as found:
        yield found


def send(app: WorkerApp, headers: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
    app.send_task("lines", kwargs=kwargs, queue=QUEUE, headers=dict(headers or {}), task_id="the-task")


def ends(lines: list[Any], count: int) -> list[dict[str, Any]]:
    """The lines that say how a delivery has ended, when there are that many."""

    def found() -> list[dict[str, Any]]:
        return [line for line in list(lines) if line["event"] == "task_ended"]

    wait_for(lambda: len(found()) >= count, 10, f"{count} ends")
    return found()


@pytest.mark.parametrize(
    ("steps", "outcomes"),
    [
        (["done"], ["succeeded"]),
        ([PayloadError("nonsense")], ["failed"]),
        ([BackendUnavailableError("away"), "done"], ["retried", "succeeded"]),
        ([HandBack("the slice is over"), "done"], ["handed_back", "succeeded"]),
        ([AlreadyDone("it is done")], ["duplicate"]),
    ],
)
def test_a_delivery_has_one_line_with_its_outcome(
    app: WorkerApp, script: Script, lines: list[Any], steps: list[Any], outcomes: list[str]
) -> None:
    script.steps = steps
    send(app, execution_id="ex", organization_id="org")
    found = ends(lines, len(outcomes))
    assert [line["outcome"] for line in found] == outcomes
    for line, step in zip(found, steps, strict=True):
        assert line["seconds"] >= 0
        assert (line["task"], line["task_id"], line["queue"]) == ("lines", "the-task", QUEUE)
        assert (line["execution_id"], line["organization_id"]) == ("ex", "org")
        assert line.get("reason") == (str(step) if isinstance(step, Exception) else None)


def test_a_delivery_that_nothing_can_end_has_one_line_too(
    app: WorkerApp, script: Script, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise TypeError("another bug")

    monkeypatch.setattr("shared.task.bury", fail)
    script.steps, script.endings = [PayloadError("nonsense")], [TypeError("a bug")]
    send(app)
    assert [(line["outcome"], line["reason"]) for line in ends(lines, 1)] == [("unfinished", "nonsense")]


def test_a_delivery_that_goes_back_to_its_broker_has_one_line_too(
    app: WorkerApp, script: Script, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent = Unreachable("lines", app=app)
    monkeypatch.setattr(type(app.tasks["lines"]), "signature_from_request", lambda *_args, **_kwargs: unsent)
    script.steps = [HandBack("the slice is over"), "done"]
    send(app)
    assert [line["outcome"] for line in ends(lines, 2)] == ["rejected", "succeeded"]


def test_a_request_keeps_its_id_and_its_trace_through_retries_and_hand_backs(
    app: WorkerApp, script: Script, lines: list[Any]
) -> None:
    said: list[dict[str, str]] = []

    def look(_call: Call) -> str:
        said.append(http_headers())
        return "done"

    script.steps = [BackendUnavailableError("away"), HandBack("the slice is over"), look]
    send(app, {"request_id": "the-users", **TRACE})
    for line in ends(lines, 3):
        assert (line["request_id"], line["trace_id"]) == ("the-users", TRACE_ID)
    for _, _, headers, _ in script.deliveries:
        assert {name: headers[name] for name in ("request_id", *TRACE)} == {"request_id": "the-users", **TRACE}
    assert said == [{"X-Request-ID": "the-users", **TRACE}]


@pytest.mark.parametrize("sent", [{}, {"request_id": "a\r\nHost: evil"}, {"request_id": 7}, {"request_id": "x" * 129}])
def test_what_cannot_be_a_header_is_replaced_by_the_root_of_the_message(
    app: WorkerApp, script: Script, lines: list[Any], sent: dict[str, Any]
) -> None:
    script.steps = [HandBack("the slice is over"), "done"]
    app.send_task("lines", queue=QUEUE, headers=sent, task_id="the-task", root_id="the-root")
    assert {line["request_id"] for line in ends(lines, 2)} == {"the-root"}
    assert script.deliveries[1][2]["request_id"] == "the-root"


def test_a_message_without_a_root_is_a_request_of_its_own(app: WorkerApp, script: Script, lines: list[Any]) -> None:
    script.steps = ["done"]
    send(app, {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01", "tracestate": "a=b"})
    (line,) = ends(lines, 1)
    assert line["request_id"] == "the-task"
    assert "trace_id" not in line


def test_nothing_of_one_delivery_is_on_the_lines_of_the_next(app: WorkerApp, script: Script, lines: list[Any]) -> None:
    def bind(_call: Call) -> str:
        bind_context(file_execution_id="file-1")
        return "done"

    script.steps = [bind, "done"]
    send(app, TRACE, execution_id="ex")
    send(app, organization_id="org")
    first, second = ends(lines, 2)
    assert first.keys() - second.keys() == {"execution_id", "trace_id", "file_execution_id"}
    assert second["organization_id"] == "org"


def test_what_is_bound_for_one_file_is_not_on_the_lines_of_the_next(lines: list[Any]) -> None:
    for number in (1, 2):
        with inner_context(file_number=number):
            log.info("before")
            bind_context(file_execution_id=f"file-{number}")
            log.info("after")
    log.info("outside")
    said = [(line["event"], line.get("file_number"), line.get("file_execution_id")) for line in lines]
    assert said == [
        ("before", 1, None),
        ("after", 1, "file-1"),
        ("before", 2, None),
        ("after", 2, "file-2"),
        ("outside", None, None),
    ]
