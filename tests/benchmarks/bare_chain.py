"""The path of an execution with one file as stock Celery would have it: three tasks in a chain, with the same requests.

One httpx client per process, as httpx's documentation has it (https://www.python-httpx.org/advanced/clients/); late
acknowledgement and confirmed publishing, as the workers have them; no results, no state, no retries.
"""

import os
import uuid

import httpx
from celery import Celery, chain

QUEUE = "bare"

app = Celery("bare", broker=os.environ.get("CELERY_BROKER_URL"), set_as_current=False, fixups=[])
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"confirm_publish": True} if "amqp" in os.environ.get("CELERY_BROKER_URL", "") else {},
)
http = httpx.Client(
    base_url=os.environ.get("INTERNAL_API_BASE_URL", ""),
    headers={"Authorization": "Bearer bare", "X-Organization-ID": "swift"},
    timeout=30,
    limits=httpx.Limits(max_connections=64, max_keepalive_connections=64),
)


def _ask(method: str, path: str, body: object = None) -> object:
    return http.request(method, path, json=body).raise_for_status().json()


@app.task(shared=False)  # type: ignore[untyped-decorator] # Celery ships no types
def start(execution: str) -> str:
    named = f"v1/workflow-execution/{execution}/"
    _ask("GET", named)
    _ask("GET", f"v1/workflow-manager/workflow/{execution}/tool-instances/")
    _ask("POST", "v1/tool-execution/validate/", {"workflow_id": execution, "tool_instances": ["1"]})
    _ask("POST", f"{named}update_status/", {"status": "EXECUTING", "total_files": 1})
    _ask("GET", "v1/configuration/MAX_PARALLEL_FILE_BATCHES/")
    return execution


@app.task(shared=False)  # type: ignore[untyped-decorator] # Celery ships no types
def process(execution: str) -> str:
    _ask("POST", "v1/file-execution/", {"execution_id": execution, "file_hash": {"file_name": "note-0.txt"}})
    file = str(uuid.uuid4())
    _ask("POST", "v1/workflow-manager/execute-file/", {"file_data": {"file_execution_id": file}})
    _ask("POST", f"v1/file-execution/{file}/status/", {"status": "COMPLETED"})
    return execution


@app.task(shared=False)  # type: ignore[untyped-decorator] # Celery ships no types
def end(execution: str) -> None:
    named = f"v1/workflow-execution/{execution}/"
    _ask("GET", named)
    ended = {"status": "COMPLETED", "total_files": 1, "successful_files": 1, "failed_files": 0}
    _ask("POST", f"{named}update_status/", ended)
    _ask("GET", f"v1/webhook/pipeline/{execution}/notifications/")


def send(by: Celery) -> None:
    """Send one, through that application's connections."""
    steps = [by.signature(task.name, queue=QUEUE) for task in (start, process, end)]
    chain(*steps, app=by).apply_async((str(uuid.uuid4()),), queue=QUEUE)
