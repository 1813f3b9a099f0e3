"""The key appears in nothing that a failing run prints, though the backend repeats whatever it was sent."""

import html
import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from config.workers import PROFILES
from monitoring.registry import KEPT
from sandbox.stack import Stack, wait_for
from shared.api_client import InternalAPIClient
from shared.celery_app import build_app
from shared.errors import WorkerError
from tests.fakes import settings

ROOT = Path(__file__).resolve().parents[2]
KEY = 'k3y"with&odd<characters+and/more'  # as JSON and as HTML it has other forms
FORMS = (KEY, json.dumps(KEY)[1:-1], html.escape(KEY))


class Parrot(BaseHTTPRequestHandler):
    """Answers as its server was told, with the request's headers in body, reason and redirect, as debug pages do."""

    protocol_version = "HTTP/1.1"
    statuses: ClassVar[list[int]] = []
    heard: ClassVar[list[str]] = []

    def do_GET(self) -> None:  # http.server names it
        key = self.headers["Authorization"]
        self.heard.append(key)
        status = self.statuses[len(self.heard) % len(self.statuses)]
        body = json.dumps({"error": "failed", "detail": f"headers were {key} {dict(self.headers)}"}).encode()
        body = body.replace(b"+", rb"\u002b").replace(b"/", rb"\/")  # as other languages write JSON
        self.send_response(status)
        self.send_header("Content-Type", f"application/json; {key}")
        self.send_header("Location", f"http://127.0.0.1:1/?{key}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def parrot(*statuses: int) -> Iterator[str]:
    Parrot.statuses, Parrot.heard = list(statuses), []
    with ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/internal"
        server.shutdown()
        thread.join(10)
        assert all(KEY in heard for heard in Parrot.heard)
        assert Parrot.heard


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_failing_worker_prints_no_key(log_format: str) -> None:
    """500s and a redirect, then a refusal that ends the task, at the level that says most."""
    with Stack() as stack, parrot(500, 302, 500, 400) as url:
        stack.start_redis()
        stack.wait_until_ready()
        variables = {
            "INTERNAL_API_BASE_URL": url,
            "INTERNAL_SERVICE_API_KEY": KEY,
            "INTERNAL_API_RETRY_BACKOFF_FACTOR": "0",
            "LOG_LEVEL": "DEBUG",
            "LOG_FORMAT": log_format,
        }
        stack.start_workers("general", **variables)
        log = stack.parts["general"].log
        wait_for(lambda: "worker_ready" in log.read_text(), 30, "the worker")
        app = build_app(PROFILES["general"], settings(CELERY_BROKER_URL=stack.broker_url))
        with app:
            app.send_task("async_execute_bin", args=["org", "wf", "ex", {}], queue="celery")
        wait_for(lambda: "answered 400" in log.read_text(), 30, "the refusal")
        wait_for(lambda: "Traceback" in log.read_text(), 30, "the traceback")
        printed = log.read_text()
    assert "headers were Bearer ***" in printed
    for form in FORMS:
        assert form not in printed
    if log_format == "json":
        lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        celerys = [line for line in lines if line["logger"] == "celery.app.trace"]
        assert [(line["execution_id"], line["organization_id"]) for line in celerys] == [("ex", "org")]


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 422, 429, 500, 502, 503])
def test_no_error_traceback_repr_or_metric_has_the_key(status: int) -> None:
    with parrot(status) as url:
        found = settings(INTERNAL_API_BASE_URL=url, INTERNAL_SERVICE_API_KEY=KEY, INTERNAL_API_RETRY_BACKOFF_FACTOR="0")
        with InternalAPIClient(found) as client, pytest.raises(WorkerError) as caught:
            client.for_organization("org").execution("ex")
        shown = [repr(found), repr(client), repr(caught.value), *traceback.format_exception(caught.value)]
    shown.append(KEPT.exposition()[0].decode())
    for form in FORMS:
        assert form not in "\n".join(shown)


def test_a_traceback_on_a_terminal_shows_no_local_variables() -> None:
    """structlog shows them wherever rich is installed, as it is in a checkout."""
    script = (
        "from shared.logging_utils import configure_logging, get_logger\n"
        "configure_logging('INFO', 'console')\n"
        "def fail(key):\n    raise ValueError\n"
        "try:\n    fail('hid' + 'den')\n"
        "except ValueError:\n    get_logger('own').exception('failed')\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ValueError" in ran.stderr
    assert "hidden" not in ran.stderr
