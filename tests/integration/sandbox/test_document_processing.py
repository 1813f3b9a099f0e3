"""The workflow document-processing, in threads, against the reference backend: each effect once, always an end."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sandbox.extraction.tool import extract
from shared.api_client import InternalAPIClient
from shared.workflows.attempts import Limits
from shared.workflows.catalogue import load
from shared.workflows.client import TaskClient
from shared.workflows.engines.local import LocalEngine
from shared.workflows.errors import RunFailedError
from shared.workflows.views import Event
from tests.fakes import settings
from tests.integration.sandbox.conftest import KEY

SAMPLES = Path(__file__).resolve().parents[3] / "sandbox/samples"
NAME = "document-processing"


def client_of(backend: Any) -> TaskClient:
    known = load(["sandbox.workflows.document_processing"])
    quick = settings(
        INTERNAL_API_BASE_URL=str(backend.http.base_url.join("/internal")),
        INTERNAL_SERVICE_API_KEY=KEY,
        INTERNAL_API_RETRY_BACKOFF_FACTOR="0.05",
        CIRCUIT_BREAKER_MINIMUM_VOLUME="1000",
        CIRCUIT_BREAKER_FAILURE_THRESHOLD="1000",
    )
    return TaskClient(LocalEngine(Limits(), lambda: InternalAPIClient(quick)), known)


@pytest.fixture
def tenant(backend: Any) -> Iterator[Any]:
    """The backend with a fresh organization, in fair weather; in fair weather afterwards."""
    backend.control("PUT", "switches", {"reset": True})
    backend.setup()
    yield backend
    backend.control("PUT", "switches", {"reset": True})


@pytest.fixture
def client(tenant: Any) -> Iterator[TaskClient]:
    with client_of(tenant) as found:
        yield found


def staged(backend: Any, name: str) -> dict[str, Any]:
    """A sample, staged: what a run takes."""
    made = backend.organization
    path = f"/sandbox/staged/{made['organization_id']}/{made['api_name']}/"
    answer = backend.http.post(path, files=[("files", (name, (SAMPLES / name).read_bytes()))]).json()
    return {**answer, "file": answer.pop("files")[name]}


def start(client: TaskClient, backend: Any, document: dict[str, Any]) -> str:
    return client.start_workflow(NAME, document, organization_id=backend.organization["organization_id"])


def execution_of(backend: Any, document: dict[str, Any]) -> dict[str, Any]:
    """The execution as evidence has it, its files by name."""
    every = backend.control("GET", "evidence")["executions"]
    (found,) = [one for one in every if one["id"] == document["execution_id"]]
    return {**found, "files": {file["name"]: file for file in found["files"]}}


def begun(client: TaskClient, run_id: str, step: str) -> Event:
    """Wait for that step to run."""
    return next(event for event in client.events(run_id) if (event.step, event.state) == (step, "running"))


def counts(execution: dict[str, Any]) -> tuple[str, int, int, int]:
    names = ("status", "total_files", "successful_files", "failed_files")
    status, total, good, bad = (execution[name] for name in names)
    return status, total, good, bad


def is_done_once(execution: dict[str, Any], name: str, pages: int) -> None:
    assert counts(execution) == ("COMPLETED", 1, 1, 0)
    assert set(execution["files"]) == {name, *(f"{name}#page={number}" for number in range(1, pages + 1))}
    assert {(file["status"], file["runs"]) for file in execution["files"].values()} == {("COMPLETED", 1)}


@pytest.mark.parametrize(("name", "pages"), [("invoice.pdf", 3), ("ledger.xlsx", 1), ("shipping-list-utf16.csv", 1)])
def test_a_run_gives_what_the_tools_say_of_the_whole_document(
    client: TaskClient, tenant: Any, name: str, pages: int
) -> None:
    document = staged(tenant, name)
    given = client.result(start(client, tenant, document), 60)
    assert given == {"store": extract(SAMPLES / name)}
    is_done_once(execution_of(tenant, document), name, pages)
    asked = {"workflow_id": document["workflow_id"], "file_hashes": [document["file"]["file_hash"]]}
    history = tenant.call("POST", "workflow-manager/file-history/check-batch/", asked).json()["file_history_details"]
    assert history[document["file"]["file_hash"]]["execution_count"] == 1


def test_a_damaged_document_fails_once_in_extract_with_the_tools_own_words(client: TaskClient, tenant: Any) -> None:
    document = staged(tenant, "damaged.pdf")
    words = "the PDF is damaged: its end is missing, the file was cut off. Export or transfer it again."
    with pytest.raises(RunFailedError) as failed:
        client.result(start(client, tenant, document), 60)
    assert (failed.value.step, failed.value.attempt, failed.value.reason) == ("extract", 1, words)
    execution = execution_of(tenant, document)
    assert (*counts(execution), execution["error_message"]) == ("ERROR", 1, 0, 1, words)
    ((name, file),) = execution["files"].items()
    assert (name, file["status"], file["error"], file["runs"]) == ("damaged.pdf", "ERROR", words, 1)


def test_a_page_that_fails_ends_all_that_is_open(client: TaskClient, tenant: Any) -> None:
    """The document goes away between its extraction and its analysis."""
    gone = "(there is no file|the file cannot be read)"  # as far as the tools had come
    document = staged(tenant, "invoice.pdf")
    tenant.control("PUT", "switches", {"tool_seconds": 0.7})
    run_id = start(client, tenant, document)
    begun(client, run_id, "analyse")
    shutil.rmtree((tenant.log.parent / "storage" / document["file"]["file_path"]).parent)
    with pytest.raises(RunFailedError, match=f"analyse, item 0 failed at attempt 1: {gone}"):
        client.result(run_id, 60)
    execution = execution_of(tenant, document)
    assert counts(execution) == ("ERROR", 1, 0, 1)
    assert re.match(f"page 1: {gone}", execution["error_message"])
    assert len(execution["files"]) == 4
    assert {file["status"] for file in execution["files"].values()} == {"ERROR"}


def test_a_backend_that_fails_at_random_makes_nothing_happen_twice(client: TaskClient, tenant: Any) -> None:
    documents = [staged(tenant, "invoice.pdf") for _ in range(2)]
    weather = {"rate_503": 0.2, "rate_reset": 0.1, "rate_reset_after": 0.2, "seed": 7}
    tenant.control("PUT", "switches", weather)
    runs = [start(client, tenant, document) for document in documents]
    expected = {"store": extract(SAMPLES / "invoice.pdf")}
    assert [client.result(run_id, 90) for run_id in runs] == [expected] * 2
    tenant.control("PUT", "switches", {"reset": True})
    for document in documents:
        is_done_once(execution_of(tenant, document), "invoice.pdf", 3)
    steps = [step for run_id in runs for step in client.status(run_id).steps.values()]
    assert sum(step.attempts for step in steps) == 2 * (3 + 3)  # what is away for a while uses up no attempt


def test_pages_wait_for_capacity(launch: Callable[..., Any], tmp_path: Path) -> None:
    few = {"SANDBOX_TOOL_WORKERS": "1", "SANDBOX_TOOL_QUEUE": "0", "SANDBOX_TOOL_WAIT_SECONDS": "0"}
    backend = launch(tmp_path, **few)
    backend.control("PUT", "switches", {"tool_seconds": 0.3})
    backend.setup()
    document = staged(backend, "invoice.pdf")
    with client_of(backend) as client:
        run_id = start(client, backend, document)
        assert client.result(run_id, 60) == {"store": extract(SAMPLES / "invoice.pdf")}
        assert client.status(run_id).steps["analyse"].attempts == 3
    assert backend.control("GET", "stats")["statuses"]["503"] > 0
    is_done_once(execution_of(backend, document), "invoice.pdf", 3)
    backend.stop()


def test_an_execution_that_was_stopped_stays_stopped(client: TaskClient, tenant: Any) -> None:
    document = staged(tenant, "invoice.pdf")
    tenant.control("PUT", "switches", {"tool_seconds": 0.7})
    run_id = start(client, tenant, document)
    begun(client, run_id, "analyse")
    tenant.call("POST", f"workflow-execution/{document['execution_id']}/update_status/", {"status": "STOPPED"})
    with pytest.raises(RunFailedError, match=r"step store .*the execution is STOPPED already"):
        client.result(run_id, 60)
    assert execution_of(tenant, document)["status"] == "STOPPED"


def test_a_second_run_of_a_document_leaves_the_first_ones_end_alone(client: TaskClient, tenant: Any) -> None:
    document = staged(tenant, "letter.txt")
    client.result(start(client, tenant, document), 60)
    with pytest.raises(RunFailedError, match=r"step extract .*the execution is COMPLETED already"):
        client.result(start(client, tenant, document), 60)
    is_done_once(execution_of(tenant, document), "letter.txt", 1)


def test_two_runs_of_a_document_at_once_run_the_tools_once(client: TaskClient, tenant: Any) -> None:
    """As after an engine took a worker for dead that was not."""
    document = staged(tenant, "invoice.pdf")
    tenant.control("PUT", "switches", {"tool_seconds": 0.3})
    with ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(lambda _: start(client, tenant, document), range(2)))
    assert [client.result(run_id, 60) for run_id in runs] == [{"store": extract(SAMPLES / "invoice.pdf")}] * 2
    is_done_once(execution_of(tenant, document), "invoice.pdf", 3)


def test_a_cancelled_run_stops_asking(client: TaskClient, tenant: Any) -> None:
    document = staged(tenant, "letter.txt")
    tenant.control("PUT", "switches", {"tool_seconds": 6})
    run_id = start(client, tenant, document)
    polls = tenant.control("GET", "stats")["polls"]
    tenant.until("a poll", lambda: tenant.control("GET", "stats")["polls"] > polls)
    assert client.cancel(run_id)
    time.sleep(1.5)
    polls = tenant.control("GET", "stats")["polls"]
    time.sleep(3)
    assert tenant.control("GET", "stats")["polls"] == polls
