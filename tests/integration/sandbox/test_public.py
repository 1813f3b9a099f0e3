"""The public side: documents in, one message out, results back once."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from kombu.connection import Connection


@pytest.fixture
def store(empty_queues: redis.Redis) -> redis.Redis:
    """Where workers push results; the queues are empty."""
    return empty_queues


def message(url: str, queue: str) -> dict[str, Any]:
    """The one message in a queue, as a worker would take it."""
    with Connection(url) as connection:
        waiting = connection.SimpleQueue(queue)
        received = waiting.get(timeout=5)
        received.ack()
        with pytest.raises(waiting.Empty):
            waiting.get(block=False)
        waiting.close()
        args, kwargs, _ = received.payload
        assert received.content_type == "application/json"
        return {"task": received.headers["task"], "args": args, "kwargs": kwargs}


def post(backend: Any, files: list[tuple[str, bytes]], **form: Any) -> httpx.Response:
    made = backend.organization
    path = f"/deployment/api/{made['organization_id']}/{made['api_name']}/"
    parts = [("files", (name, content)) for name, content in files]
    key = form.pop("key", made["api_key"])
    http: httpx.Client = backend.http
    return http.post(path, files=parts, data=form, headers={"Authorization": f"Bearer {key}"})


def stage(backend: Any, files: list[tuple[str, bytes]], api_name: str | None = None, **headers: str) -> httpx.Response:
    made = backend.organization
    path = f"/sandbox/staged/{made['organization_id']}/{api_name or made['api_name']}/"
    parts = [("files", (name, content)) for name, content in files]
    http: httpx.Client = backend.http
    return http.post(path, files=parts, headers=headers)


def staged(backend: Any) -> list[str]:
    """The executions whose documents are still on the disk."""
    folder = backend.log.parent / "storage/unstract/api" / backend.organization["organization_id"]
    return [entry.name for entry in folder.iterdir()]


def fetch(backend: Any, status_api: str) -> httpx.Response:
    http: httpx.Client = backend.http
    return http.get(status_api, headers={"Authorization": f"Bearer {backend.organization['api_key']}"})


def finish(backend: Any, store: redis.Redis, execution_id: str, status: str = "COMPLETED", **more: Any) -> None:
    """What the workers do at the end: the result into Redis, the status to the backend."""
    key = f"api_results:{backend.organization['workflow_id']}:{execution_id}"
    item = {"file": "a.txt", "file_execution_id": "f", "status": "Success", "result": {"x": 1}, "error": None}
    store.rpush(key, json.dumps({**item, "metadata": {}}))
    path = f"workflow-execution/{execution_id}/update_status/"
    answer = backend.call("POST", path, {"status": status, "total_files": 1, **more})
    assert answer.status_code == 200


@pytest.mark.usefixtures("store")
def test_the_message_is_what_the_workers_expect(echo: Any, environment: dict[str, str]) -> None:
    answer = post(echo, [("a.txt", b"one"), ("a.txt", b"two"), ("b", b"")], use_file_history="true")
    assert answer.status_code == 200
    body = answer.json()
    status_api = body["message"].pop("status_api")
    assert body["message"] == {"execution_status": "PENDING", "error": None, "result": None}
    assert status_api.endswith(f"?execution_id={body['execution_id']}")

    sent = message(environment["CELERY_BROKER_URL"], "celery_api_deployments")
    made = echo.organization
    assert sent["task"] == "async_execute_bin"
    assert sent["args"][:3] == [made["organization_id"], made["workflow_id"], body["execution_id"]]
    assert sent["kwargs"] == {
        "scheduled": False,
        "execution_mode": None,
        "pipeline_id": made["api_deployment_id"],
        "log_events_id": None,
        "use_file_history": True,
        "llm_profile_id": None,
        "hitl_queue_name": None,
        "custom_data": None,
        "hitl_packet_id": None,
        "transport": "celery",
    }
    hashes = sent["args"][3]
    assert list(hashes) == ["a.txt", "a (2).txt", "b"]
    path = hashes["a (2).txt"].pop("file_path")
    assert path.startswith(f"unstract/api/{made['organization_id']}/{body['execution_id']}/")
    assert hashes["a (2).txt"] == {
        "file_hash": hashlib.sha256(b"two").hexdigest(),
        "file_name": "a (2).txt",
        "source_connection_type": "API",
        "file_destination": None,
        "is_executed": False,
        "file_size": 3,
        "mime_type": "text/plain",
        "provider_file_uuid": None,
        "fs_metadata": {},
        "file_number": 2,
    }
    shown = echo.control("GET", f"executions/{body['execution_id']}/")
    assert shown["execution"]["status"] == "PENDING"
    assert shown["execution"]["total_files"] == 3


@pytest.mark.usefixtures("store")
def test_staged_documents_are_what_the_tool_reads(echo: Any, environment: dict[str, str]) -> None:
    echo.control("PUT", "switches", {"tool": "extract"})
    execution_id = post(echo, [("a.txt", b"four words in it")]).json()["execution_id"]
    sent = message(environment["CELERY_BROKER_URL"], "celery_api_deployments")
    body = echo.file(execution_id, "a.txt", **sent["args"][3]["a.txt"])
    echo.execute(body)
    done = echo.until("the tool to end", lambda: echo.poll(body).status_code == 200 and echo.poll(body).json())
    assert done["result"] == {
        "text": "four words in it",
        "mime_type": "text/plain",
        "pages": 1,
        "words": 4,
        "characters": 16,
        "metadata": {"encoding": "utf-8", "lines": 1},
    }


def test_a_staged_execution_is_as_a_posted_one_and_no_worker_is_told(
    echo: Any, store: redis.Redis, environment: dict[str, str]
) -> None:
    documents = [("a.txt", b"one"), ("a.txt", b"two")]
    body = stage(echo, documents).json()
    posted = post(echo, documents).json()["execution_id"]
    sent = message(environment["CELERY_BROKER_URL"], "celery_api_deployments")  # the only one: of what was posted
    told = json.loads(json.dumps(sent["args"][3]).replace(posted, body["execution_id"]))
    assert body == {"execution_id": body["execution_id"], "workflow_id": sent["args"][1], "files": told}
    shown = [echo.control("GET", f"executions/{key}/")["execution"] for key in (posted, body["execution_id"])]
    assert {**shown[0], "id": ""} == {**shown[1], "id": ""}
    assert set(staged(echo)) == {posted, body["execution_id"]}
    finish(echo, store, body["execution_id"])
    path = f"/deployment/api/{echo.organization['organization_id']}/{echo.organization['api_name']}/"
    assert fetch(echo, f"{path}?execution_id={body['execution_id']}").status_code == 200
    assert staged(echo) == [posted]


def test_what_cannot_be_staged_leaves_nothing(echo: Any) -> None:
    assert stage(echo, [("n" * 300, b"one")]).status_code == 400
    assert staged(echo) == []
    assert stage(echo, [("a.txt", b"one")], api_name="nothing").status_code == 404
    assert stage(echo, [("a.txt", b"one")], Authorization=f"Bearer {echo.organization['api_key']}").status_code == 401


def test_results_are_given_once(echo: Any, store: redis.Redis) -> None:
    body = post(echo, [("a.txt", b"one")]).json()
    status_api = body["message"]["status_api"]
    waiting = fetch(echo, status_api)
    assert waiting.status_code == 422
    assert waiting.json()["message"]["execution_status"] == "PENDING"
    assert staged(echo) == [body["execution_id"]]
    finish(echo, store, body["execution_id"], successful_files=1, failed_files=0)
    answer = fetch(echo, status_api)
    assert answer.status_code == 200
    assert answer.json()["message"]["execution_status"] == "COMPLETED"
    assert [item["file"] for item in answer.json()["message"]["result"]] == ["a.txt"]
    assert fetch(echo, status_api).status_code == 406
    assert staged(echo) == []


def test_a_failed_execution_is_422_with_its_error_and_results(echo: Any, store: redis.Redis) -> None:
    body = post(echo, [("a.txt", b"one")]).json()
    finish(echo, store, body["execution_id"], "ERROR", error_message="all files failed")
    for _ in range(2):
        answer = fetch(echo, body["message"]["status_api"])
        assert answer.status_code == 422
        assert answer.json()["message"]["error"] == "all files failed"
        assert len(answer.json()["message"]["result"]) == 1


def test_a_caller_may_wait_for_the_end(echo: Any, store: redis.Redis, environment: dict[str, str]) -> None:
    def work() -> None:
        sent = message(environment["CELERY_BROKER_URL"], "celery_api_deployments")
        finish(echo, store, sent["args"][2])

    worker = threading.Thread(target=work)
    worker.start()
    answer = post(echo, [("a.txt", b"one")], timeout="30")
    worker.join()
    assert answer.status_code == 200
    assert answer.json()["message"]["execution_status"] == "COMPLETED"
    assert answer.json()["message"]["result"][0]["result"] == {"x": 1}


@pytest.mark.parametrize("count", [200, 10_000])
@pytest.mark.usefixtures("store")
def test_many_documents_in_one_request(echo: Any, environment: dict[str, str], count: int) -> None:
    documents = [(f"{number}.txt", f"document {number}".encode()) for number in range(count)]
    answer = post(echo, documents)
    assert answer.status_code == 200, answer.text
    sent = message(environment["CELERY_BROKER_URL"], "celery_api_deployments")
    assert len(sent["args"][3]) == count


@pytest.mark.usefixtures("store")
def test_refusals(echo: Any) -> None:
    assert post(echo, [("a.txt", b"one")], key="wrong").status_code == 401
    made = echo.organization
    path = f"/deployment/api/{made['organization_id']}/{made['api_name']}/"
    assert echo.http.post(path, headers={"Authorization": made["api_key"]}).status_code == 401
    assert post(echo, []).status_code in {400, 415}
    assert post(echo, [("a.txt", b"one")], timeout="soon").status_code == 400
    assert post(echo, [("n" * 300, b"one")]).status_code == 400
    assert staged(echo) == []
    assert echo.http.post("/deployment/api/nobody/nothing/").status_code == 404
    unknown = f"{path}?execution_id="
    assert fetch(echo, unknown + str(uuid.uuid4())).status_code == 404
    assert fetch(echo, f"{unknown}no-uuid").status_code == 404


def test_an_execution_nobody_was_told_of_is_an_error_at_once(launch: Callable[..., Any], tmp_path: Path) -> None:
    backend = launch(tmp_path, CELERY_BROKER_URL="redis://127.0.0.1:1/0")
    backend.setup()
    answer = post(backend, [("a.txt", b"one")])
    assert answer.status_code == 503
    assert answer.json()["message"]["execution_status"] == "ERROR"
    assert "could not be sent" in answer.json()["message"]["error"]
    shown = backend.control("GET", f"executions/{answer.json()['execution_id']}/")
    assert shown["execution"]["status"] == "ERROR"
    assert staged(backend) == []
    backend.stop()


@pytest.mark.usefixtures("store")
def test_a_pipeline_is_started_on_its_folder(echo: Any, environment: dict[str, str], tmp_path: Path) -> None:
    made = echo.setup(workflow_type="ETL", source_folder=str(tmp_path), destination_table="out")
    path = f"/pipeline/api/{made['organization_id']}/{made['pipeline_id']}/"
    headers = {"Authorization": f"Bearer {made['api_key']}"}
    body = echo.http.post(path, headers=headers).json()
    assert body["message"]["execution_status"] == "PENDING"
    sent = message(environment["CELERY_BROKER_URL"], "celery")
    assert sent["args"] == [made["organization_id"], made["workflow_id"], body["execution_id"], {}]
    assert sent["kwargs"]["pipeline_id"] == made["pipeline_id"]
    assert echo.http.get(body["message"]["status_api"], headers=headers).status_code == 422
    assert echo.http.post(path, headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_messages_reach_rabbitmq_in_a_classic_durable_queue(
    launch: Callable[..., Any], tmp_path: Path, rabbitmq_url: str
) -> None:
    backend = launch(tmp_path, CELERY_BROKER_URL=rabbitmq_url)
    backend.setup()
    body = post(backend, [("a.txt", b"one")]).json()
    # SimpleQueue declares as Celery does by default: other arguments would be refused with 406.
    sent = message(rabbitmq_url, "celery_api_deployments")
    assert sent["args"][2] == body["execution_id"]
    backend.stop()
