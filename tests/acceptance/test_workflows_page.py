"""WORKFLOWS.md does what it says: every Python block of it is run, those of Celery on stock Celery."""

import asyncio
import importlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import _state
from celery.contrib.testing.worker import start_worker
from celery.exceptions import ChordError

from sandbox.stack import wait_for
from shared.config import WorkflowSettings
from shared.workflows import client as clients
from shared.workflows.client import TaskClient
from shared.workflows.errors import RunFailedError
from shared.workflows.shape import StepState
from tests.conformance import engines
from tests.conformance.engines import World
from tests.fakes import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "WORKFLOWS.md").read_text()
BLOCKS = dict(re.findall(r"<!-- ([a-z ]+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
DECLARED = ("invoices", "delivery", "waiting", "notice after", "words after", "pages after")
STOCK = ("notice before", "words before", "pages before")
CALLS = ("invoices call", "invoices web", *(f"{name} call" for name in (*STOCK, *DECLARED[3:])))
SECONDS = 10.0


def test_every_python_block_is_known_to_these_tests() -> None:
    assert sorted(BLOCKS) == sorted((*DECLARED, *STOCK, *CALLS))
    assert len(BLOCKS) == PAGE.count("```python")


def test_the_variables_are_those_of_the_settings() -> None:
    told = dict(re.findall(r"^\| `(WORKFLOW_\w+)` \| (\d*) ?\|", PAGE, re.MULTILINE))
    assert told == {spec.metadata["name"]: spec.metadata["default"] for spec in fields(WorkflowSettings)}


def test_the_image_is_one_of_ours() -> None:
    [name] = re.findall(r"^FROM (\S+):", PAGE, re.MULTILINE)
    assert f'image.title="{name}"' in (ROOT / "docker/general.Dockerfile").read_text()


def test_every_place_that_is_linked_is_there() -> None:
    headings = {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in re.findall(r"^#+ (.*)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All blocks as modules that can be imported."""
    found = tmp_path_factory.mktemp("page")
    for name in (*DECLARED, *STOCK):
        (found / f"{_module(name)}.py").write_text(BLOCKS[name])
    sys.path.insert(0, str(found))
    yield found
    sys.path.remove(str(found))
    for name in (*DECLARED, *STOCK):
        sys.modules.pop(_module(name), None)


def _module(name: str) -> str:
    return name.replace(" ", "_")


def load(name: str) -> ModuleType:
    return importlib.import_module(_module(name))


def call(name: str, **given: Any) -> dict[str, Any]:
    """Run a block that calls what another declares; what it has left."""
    names = {**vars(load(name.removesuffix(" call"))), **given}
    exec(BLOCKS[name], names)  # noqa: S102 # the page is ours
    return names


@pytest.fixture(scope="module", params=["local", "celery-redis"])
def world(request: pytest.FixtureRequest, redis_url: str) -> Iterator[World]:
    with engines.local() if request.param == "local" else engines.fleet(redis_url, redis_url) as found:
        yield found


@pytest.fixture
def client(world: World, folder: Path) -> TaskClient:  # noqa: ARG001 # it is where they are imported from
    """One that knows all that the page declares."""
    owners = [owner for name in DECLARED for owner in vars(load(name)).values() if _declares(owner, name)]
    assert len(owners) == len(DECLARED)
    return world.client(*owners)


def _declares(value: Any, name: str) -> bool:
    return isinstance(value, type) and "declaration" in vars(value) and value.__module__ == _module(name)


# Celery 5.7 keeps results by a command that redis-py 8 would rather see written another way.
stock_celery = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


_KEPT: list[set[Any]] = []


@contextmanager
def stock(name: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker of stock Celery, in a database that no worker of ours looks into."""
    # Its tasks would be those of every application that this process makes from now on.
    of_all = set(_state._on_app_finalizers)
    address = urlsplit(redis_url)._replace(path="/9").geturl()
    monkeypatch.setenv("CELERY_BROKER_URL", address)
    monkeypatch.setenv("RESULTS", address)
    app = load(name).app
    with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False, shutdown_timeout=SECONDS):
        yield
    app.close()
    _KEPT.append(set(_state._on_app_finalizers))  # what goes asks for its result backend once more, which is gone
    _state._on_app_finalizers &= of_all


# The way in, as it was. These tests come first: who stops Celery's testing worker stops all that are in its process.


class Receiver(ThreadingHTTPServer):
    """Answers each post with the next of these, and remembers it."""

    def __init__(self, *answers: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.answers, self.bodies, self.keys = list(answers), list[Any](), list[str | None]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Answers(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.keys.append(self.headers["Idempotency-Key"])
        self.send_response(self.server.answers.pop(0))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def receiver(*answers: int) -> Iterator[Receiver]:
    with Receiver(*answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


BUSY_TWICE = (503, 503, 201)


@stock_celery
@pytest.mark.usefixtures("folder")
def test_a_lone_task_before(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stock("notice before", redis_url, monkeypatch), receiver(*BUSY_TWICE) as heard:
        assert call("notice before call", url=heard.url)["status"] == 201
    assert heard.bodies == [{"order": "A-7"}] * 3


TEXT = "to be or not to be"
COUNTS = {"to": 2, "be": 2, "or": 1, "not": 1}


def _stored(folder: Path) -> Any:
    return json.loads((folder / "text.json").read_text())


@stock_celery
@pytest.mark.usefixtures("folder")
def test_a_chain_before(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    with stock("words before", redis_url, monkeypatch):
        assert call("words before call", path=str(tmp_path / "text.txt"))["words"] == len(COUNTS)
    assert _stored(tmp_path) == COUNTS


GOOD, BAD = "one two\fthree\ffour five six", "one\f \fthree"


def _written(folder: Path, text: str) -> tuple[dict[str, str], Path]:
    (folder / "document.txt").write_text(text)
    report = folder / "report.json"
    return {"document": str(folder / "document.txt"), "report": str(report)}, report


@stock_celery
@pytest.mark.usefixtures("folder")
def test_a_chord_before(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stock("pages before", redis_url, monkeypatch):
        given, report = _written(tmp_path, GOOD)
        assert call("pages before call", **given)["words"] == 6
        assert json.loads(report.read_text()) == {"words": 6}

        given, report = _written(tmp_path, BAD)
        # That of the page, or of the body, whichever its caller hears of first.
        with pytest.raises((ValueError, ChordError), match="an empty page"):
            call("pages before call", **given)
        wait_for(lambda: "failed" in report.read_text(), SECONDS, "the error callback")
        assert "an empty page" in json.loads(report.read_text())["failed"]


# The reference.


@pytest.fixture
def environment(world: World, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """That of a caller, whose client is made anew."""
    store = urlsplit(redis_url)
    settings = ENVIRONMENT | {
        "WORKFLOW_MODULES": "invoices",
        "TASK_QUEUE_BACKEND": type(world.engine).__name__.removesuffix("Engine").lower(),
        "CELERY_BROKER_URL": redis_url,
        "CACHE_REDIS_HOST": store.hostname or "",
        "CACHE_REDIS_PORT": str(store.port),
        "CACHE_REDIS_PASSWORD": store.password or "",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    clients._of_process.cache_clear()
    yield
    clients.get_task_client().close()
    clients._of_process.cache_clear()


@pytest.mark.usefixtures("client", "environment")
def test_the_first_workflow_gives_what_the_page_says() -> None:
    [told] = re.findall(r"this gives `(.*?)`", PAGE)
    names = call("invoices call")
    assert names["result"] == json.loads(told)

    exec(BLOCKS["invoices web"], names)  # noqa: S102 # as above
    text = "A-8\npaper 1\nink 2\npens 3"
    assert asyncio.run(names["total"](text)) == {"total": {"number": "A-8", "cents": 6}}
    run_id = names["accept"]("order 8", text)
    assert names["accept"]("order 8", text) == run_id

    async def lines() -> list[str]:
        return [line async for line in names["lines"](run_id)]

    told = asyncio.run(lines())
    assert told[0] == "run: running"
    assert told[-1] == "run: succeeded"
    assert told.count("price: running") == 3


def test_conditions_and_lists_do_what_the_page_says(client: TaskClient) -> None:
    order = {"address": "Main Street 1", "country": "DE", "parcels": ["a", "b"]}
    assert client.run_workflow_sync("delivery", order, timeout=SECONDS) == {"label": ["a: no form", "b: no form"]}
    abroad = client.run_workflow_sync("delivery", order | {"country": "FR"}, timeout=SECONDS)
    assert abroad == {"label": ["a: form for FR", "b: form for FR"]}


def test_a_workflow_error_is_final_and_on_failure_follows(client: TaskClient) -> None:
    run_id = client.start_workflow("delivery", {"country": "DE", "parcels": []})
    with pytest.raises(RunFailedError) as failed:
        client.result(run_id, SECONDS)
    assert (failed.value.step, failed.value.attempt, failed.value.reason) == ("check", 1, "there is no address")
    states = {name: view.state for name, view in client.status(run_id).steps.items()}
    assert states["on_failure"] is StepState.SUCCEEDED
    assert states["customs"] is states["label"] is StepState.NOT_RUN


def test_a_step_that_waits_is_found_by_its_key(client: TaskClient, tmp_path: Path) -> None:
    run_id = client.start_workflow("waiting", {"folder": str(tmp_path)})
    for event in client.events(run_id):
        if event.state == StepState.RUNNING and event.step:
            break
    job = tmp_path / f"{run_id}-order"
    while not job.exists() or not job.read_text():
        threading.Event().wait(0.01)
    job.write_text("done")
    assert client.result(run_id, SECONDS) == {"order": job.name}


# The way in, as it is then: the same comes of it.


def test_a_lone_task_after(client: TaskClient) -> None:
    with receiver(*BUSY_TWICE) as heard:
        assert call("notice after call", url=heard.url, client=client)["status"] == 201
    assert heard.bodies == [{"order": "A-7"}] * 3
    [key] = set(heard.keys)
    assert key is not None
    with receiver(404) as heard, pytest.raises(RunFailedError, match="refused with 404"):
        call("notice after call", url=heard.url, client=client)
    assert len(heard.bodies) == 1


def test_a_chain_after(client: TaskClient, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    assert call("words after call", path=str(tmp_path / "text.txt"), client=client)["words"] == len(COUNTS)
    assert _stored(tmp_path) == COUNTS


def test_a_chord_after(client: TaskClient, tmp_path: Path) -> None:
    given, report = _written(tmp_path, GOOD)
    assert call("pages after call", **given, client=client)["words"] == 6
    assert json.loads(report.read_text()) == {"words": 6}

    given, report = _written(tmp_path, BAD)
    with pytest.raises(RunFailedError) as failed:
        call("pages after call", **given, client=client)
    assert (failed.value.step, failed.value.index) == ("analyse", 1)
    assert "an empty page" in json.loads(report.read_text())["failed"]
