"""Executing one file: once per key, whatever is sent how often, and bounded."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from sandbox.extraction.tool import extract

SAMPLES = Path(__file__).resolve().parents[3] / "sandbox/samples"
NO_PAGE = "page in custom_data must be the number of a page, from 1"


def finished(backend: Any, body: dict[str, Any]) -> dict[str, Any]:
    """Poll until the file is done."""
    return dict(backend.until("the tool to end", lambda: _done(backend.poll(body))))


def _done(answer: Any) -> Any:
    assert answer.status_code in {200, 202}, answer.text
    return answer.json() if answer.status_code == 200 else None


def test_a_file_is_executed_and_its_answer_kept(echo: Any) -> None:
    body = echo.file(echo.execution(), "report.pdf")
    assert echo.poll(body).status_code == 404
    first = echo.execute(body)
    assert first.status_code == 200
    assert first.json()["status"] == "COMPLETED"
    assert first.json()["result"]["text"] == "echo of report.pdf"
    assert first.json().keys() == {"status", "file_execution_id", "result", "metadata", "execution_time"}
    assert echo.execute(body).json() == first.json()
    assert echo.poll(body).json() == first.json()


def test_sixteen_posts_at_once_run_the_tool_once(echo: Any) -> None:
    echo.control("PUT", "switches", {"tool_seconds": 0.3})
    echo.control("DELETE", "stats")
    body = echo.file(echo.execution())
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(echo.execute, [body] * 16))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert finished(echo, body)["status"] == "COMPLETED"
    assert echo.control("GET", "stats")["tool_runs"] == {"files": 1, "total": 1, "max": 1, "more_than_once": {}}


def test_a_slow_tool_is_answered_202_and_polled(echo: Any) -> None:
    echo.control("PUT", "switches", {"tool_seconds": 0.8})
    body = echo.file(echo.execution())
    key = body["file_data"]["file_execution_id"]
    answer = echo.execute(body)
    assert answer.status_code == 202
    assert answer.json() == {"status": "EXECUTING", "file_execution_id": key, "poll_after": 0.5}
    assert echo.call("GET", f"file-execution/{key}/").json()["status"] == "EXECUTING"
    assert echo.poll(body).status_code == 202
    assert finished(echo, body)["execution_time"] >= 0.8


def test_a_wrong_or_missing_key_is_refused(echo: Any) -> None:
    body = echo.file(echo.execution())
    path = "workflow-manager/execute-file/"
    assert echo.call("POST", path, body).status_code == 400
    assert echo.call("POST", path, body, Idempotency_Key=str(uuid.uuid4())).status_code == 400
    unknown = {**body, "file_data": {**body["file_data"], "file_execution_id": str(uuid.uuid4())}}
    assert echo.execute(unknown).status_code == 404
    other = {**body, "execution_id": str(uuid.uuid4())}
    assert echo.execute(other).status_code == 400


def test_over_capacity_is_503_until_there_is_room(launch: Callable[..., Any], tmp_path: Path) -> None:
    backend = launch(tmp_path, SANDBOX_TOOL_WORKERS="1", SANDBOX_TOOL_QUEUE="1", SANDBOX_TOOL_WAIT_SECONDS="0")
    backend.control("PUT", "switches", {"tool": "echo", "tool_seconds": 0.7})
    backend.setup()
    execution = backend.execution(3)
    bodies = [backend.file(execution, f"{number}.pdf") for number in range(3)]
    answers = [backend.execute(body) for body in bodies]
    assert [answer.status_code for answer in answers] == [202, 202, 503]
    assert answers[2].headers["Retry-After"] == "1"
    assert backend.poll(bodies[2]).status_code == 404
    assert backend.execute(bodies[0]).status_code in {200, 202}
    backend.until("room", lambda: backend.execute(bodies[2]).status_code != 503)
    for body in bodies:
        assert finished(backend, body)["status"] == "COMPLETED"
    backend.stop()


def test_a_file_whose_process_died_is_started_again(
    launch: Callable[..., Any], tmp_path: Path, new_database: Callable[[], dict[str, str]]
) -> None:
    database = new_database()
    first = launch(tmp_path, **database, SANDBOX_TOOL_WAIT_SECONDS="0")
    first.control("PUT", "switches", {"tool": "echo", "tool_seconds": 60})
    made = first.setup()
    body = first.file(first.execution())
    assert first.execute(body).status_code == 202
    first.kill()
    first.stop()

    second = launch(tmp_path, **database)
    second.organization = made
    second.control("PUT", "switches", {"tool": "echo"})
    assert second.poll(body).status_code == 404
    assert second.execute(body).json()["status"] == "COMPLETED"
    key = body["file_data"]["file_execution_id"]
    runs = second.control("GET", "stats")["tool_runs"]
    assert runs["max"] == 2
    assert runs["more_than_once"] == {key: 2}
    second.stop()


def test_an_end_is_written_when_the_database_is_back(
    launch: Callable[..., Any], tmp_path: Path, postgres: Callable[[], str]
) -> None:
    url = postgres()
    backend = launch(tmp_path, DATABASE_URL=url, SANDBOX_TOOL_WAIT_SECONDS="0")
    backend.control("PUT", "switches", {"tool": "echo", "tool_seconds": 1})
    backend.setup()
    body = backend.file(backend.execution())
    assert backend.execute(body).status_code == 202
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        backend.until("an attempt to write", lambda: "cannot be written yet" in backend.log.read_text())
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert finished(backend, body)["status"] == "COMPLETED"
    backend.stop()


@pytest.fixture
def etl(backend: Any, tmp_path: Path) -> Any:
    """An ETL workflow over a folder with the sample documents, a damaged one among them."""
    (tmp_path / "sub").mkdir()
    for name, folder in (("letter.txt", "."), ("invoice.pdf", "sub"), ("damaged.pdf", "sub")):
        (tmp_path / folder / name).write_bytes((SAMPLES / name).read_bytes())
    backend.control("PUT", "switches", {"reset": True})
    table = f"out_{uuid.uuid4().hex[:8]}"
    backend.setup(workflow_type="ETL", source_folder=str(tmp_path), destination_table=table)
    return backend


def source_files(backend: Any, execution_id: str, **more: Any) -> dict[str, Any]:
    made = backend.organization
    path = f"workflow-manager/source-files/{made['workflow_id']}/"
    body = {"execution_id": execution_id, "pipeline_id": made["pipeline_id"], **more}
    answer = backend.call("POST", path, body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_source_files_are_read_and_written_to_the_destination_once(etl: Any) -> None:
    execution_id = etl.execution(3)
    listed = source_files(etl, execution_id)
    assert list(listed["files"]) == ["letter.txt", "sub/damaged.pdf", "sub/invoice.pdf"]
    assert [file["file_number"] for file in listed["files"].values()] == [1, 2, 3]
    before = etl.control("GET", "stats")["destination_rows"]
    bodies = {}
    for path, file in listed["files"].items():
        bodies[path] = etl.file(execution_id, file["file_name"], **{**file, "file_path": path})
        etl.execute(bodies[path])
    done = {path: finished(etl, body) for path, body in bodies.items()}
    assert done["letter.txt"]["status"] == done["sub/invoice.pdf"]["status"] == "COMPLETED"
    assert done["sub/invoice.pdf"]["result"]["mime_type"] == "application/pdf"
    assert len(done["letter.txt"]["metadata"]["file_hash"]) == 64
    damaged = done["sub/damaged.pdf"]
    assert damaged["status"] == "ERROR"
    assert damaged.keys() == {"status", "file_execution_id", "error", "metadata"}
    for body in bodies.values():
        etl.execute(body)
    assert etl.control("GET", "stats")["destination_rows"] == before + 2


def test_a_page_is_read_alone_and_is_no_row_of_the_destination(etl: Any) -> None:
    execution_id = etl.execution()
    file = source_files(etl, execution_id)["files"]["sub/invoice.pdf"]
    before = etl.control("GET", "stats")["destination_rows"]
    texts = extract(SAMPLES / "invoice.pdf")["text"].split("\f")
    bodies = []
    for page in range(1, 5):
        marked = {name: f"{file[name]}#page={page}" for name in ("file_name", "file_path")}
        body = etl.file(execution_id, marked["file_name"], **{**file, **marked})
        body["file_data"]["custom_data"] = {"page": page}
        etl.execute(body)
        bodies.append(body)
    *pages, none = (finished(etl, body) for body in bodies)
    assert [page["result"] for page in pages] == [
        {
            "page": number,
            "mime_type": "application/pdf",
            "words": len(text.split()),
            "characters": len(text),
            "lines": len(text.splitlines()),
        }
        for number, text in enumerate(texts, 1)
    ]
    assert (none["status"], none["error"]) == ("ERROR", "the document has 3 pages of text, and no page 4.")
    assert etl.control("GET", "stats")["destination_rows"] == before


@pytest.mark.parametrize("page", [0, -1, "2", True, 1.5])
def test_what_is_no_page_is_refused(echo: Any, page: Any) -> None:
    body = echo.file(echo.execution())
    body["file_data"]["custom_data"] = {"page": page}
    answer = echo.execute(body)
    assert (answer.status_code, answer.json()["error"]) == (400, NO_PAGE)
    body["file_data"]["custom_data"] = {"page": None, "whatever": page}
    assert echo.execute(body).json()["result"]["text"] == "echo of a.pdf"


def test_processed_source_files_are_left_out_with_history(etl: Any) -> None:
    execution_id = etl.execution(3)
    file = source_files(etl, execution_id)["files"]["letter.txt"]
    row = {
        "workflow_id": etl.organization["workflow_id"],
        "file_hash": "ab" * 32,
        "provider_file_uuid": file["provider_file_uuid"],
        "file_path": "letter.txt",
        "status": "COMPLETED",
    }
    assert etl.call("POST", "file-history/create/", row).status_code == 201
    assert "letter.txt" in source_files(etl, execution_id)["files"]
    assert "letter.txt" not in source_files(etl, execution_id, use_file_history=True)["files"]


def test_a_path_outside_the_folder_is_an_error_of_the_file(etl: Any) -> None:
    body = etl.file(etl.execution(), "passwd", file_path="../../../../etc/passwd", source_connection_type="FILESYSTEM")
    etl.execute(body)
    answer = finished(etl, body)
    assert answer["status"] == "ERROR"
    assert "there is no file" in answer["error"]


def test_a_tool_that_hangs_costs_its_file_only(launch: Callable[..., Any], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    names = ("first.txt", "hangs.txt", "last.txt")
    for name in names:
        (source / name).write_text(f"the words of {name}")
    backend = launch(tmp_path / "data", SANDBOX_TOOL_WORKERS="1", SANDBOX_TOOL_LIMIT_SECONDS="2")
    backend.setup(workflow_type="TASK", source_folder=str(source), destination_table="out")
    execution = backend.execution(3)
    from_folder = {"source_connection_type": "FILESYSTEM"}
    first, hangs, last = (backend.file(execution, name, file_path=name, **from_folder) for name in names)
    backend.execute(first)
    assert finished(backend, first)["status"] == "COMPLETED"
    tool_process(backend).suspend()
    backend.execute(hangs)
    assert finished(backend, hangs)["error"] == "the document took longer than 2 s"
    backend.execute(last)
    assert finished(backend, last)["status"] == "COMPLETED"
    tool = tool_process(backend)
    backend.stop()
    backend.until("the tool process to end", lambda: not tool.is_running())
    with closing(sqlite3.connect(tmp_path / "data/backend.sqlite3")) as connection:
        written = connection.execute("SELECT file_name FROM out ORDER BY created_at").fetchall()
    assert written == [("first.txt",), ("last.txt",)]


def tool_process(backend: Any) -> psutil.Process:
    """The process that reads documents; it is given nothing it should not see."""
    family = psutil.Process(backend.process.pid).children(recursive=True)
    (tool,) = [process for process in family if "sandbox.backend.tools.child" in process.cmdline()]
    assert "INTERNAL_SERVICE_API_KEY" not in tool.environ()
    return tool
