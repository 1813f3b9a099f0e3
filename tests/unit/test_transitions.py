"""Which status may follow which, and that no delivery writes another: many at once, in any order, with copies."""

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from config.queue_routing import DEAD_LETTERS
from config.workers import PROFILES
from shared.celery_app import build_app
from shared.lifecycle import Resources
from shared.models import TERMINAL, Counts, Status
from shared.orchestration import REAPED
from shared.transitions import may_become
from tests.deliveries import Deliveries, Message, sent
from tests.fakes import FakeApp, FakeBackend, settings

ALLOWED = {
    ("PENDING", "EXECUTING"),
    ("PENDING", "COMPLETED"),
    ("PENDING", "STOPPED"),
    ("PENDING", "ERROR"),
    ("EXECUTING", "EXECUTING"),
    ("EXECUTING", "COMPLETED"),
    ("EXECUTING", "STOPPED"),
    ("EXECUTING", "ERROR"),
}
THREADS, COPIES = 8, 60
NAMES = [f"{name}.txt" for name in "abcdef"]
NAMED = {"execution_id": "ex", "organization_id": "org", "pipeline_id": "pipe"}


@pytest.mark.parametrize("now", ["", "NONSENSE", "completed", *Status])
@pytest.mark.parametrize("then", Status)
def test_every_pair(now: str, then: Status) -> None:
    known = now if now in Status.__members__ else "PENDING"
    assert may_become(now, then) is ((known, then) in ALLOWED)
    by_the_reaper = (known, then) == ("ERROR", "COMPLETED") or (known, then) in ALLOWED
    assert may_become(now, then, reaping=True) is by_the_reaper


@dataclass
class Watched(FakeBackend):
    """A backend that remembers every change of the execution's status, and lets any through."""

    changes: list[tuple[str, str]] = field(default_factory=list)

    def end_execution(self, _execution_id: str, status: Status, counts: Counts, message: str | None) -> bool:
        self._called("end_execution")
        self.changes.append((self.status, status))
        self.status, self.ended = status, (status, counts, message)
        return True

    def start_execution(self, _execution_id: str, total_files: int) -> None:
        self._called("start_execution")
        self.changes.append((self.status, "EXECUTING"))
        self.status, self.total_files = "EXECUTING", total_files


class Crowd:
    """Threads that take messages in any order, and some of them again and again, until none is left."""

    def __init__(self, backend: FakeBackend, seed: int) -> None:
        self.fake = FakeApp(backend=backend, settings=settings(BATCH_SLICE_SECONDS="1", INTERNAL_API_TIMEOUT="0.5"))
        self.app = build_app(PROFILES["all"], self.fake.settings)
        self.app.resources = cast("Resources", self.fake)
        self.app.send_task = self.publish  # type: ignore[method-assign]
        self.deliveries = Deliveries(self.app)
        self.random = random.Random(seed)  # noqa: S311 # chance, and no secret
        self.lock = threading.Condition()
        self.queue: list[Message] = []
        self.copies, self.sent, self.at_work = COPIES, 0, 0

    def publish(self, task: str, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        if options["queue"] == DEAD_LETTERS:
            return
        with self.lock:
            self.sent += 1
            self.queue.append(sent(self.sent, task, args, kwargs, options))

    def work(self, _number: int) -> None:
        while True:
            with self.lock:
                message = self.take()
            if message is not None:
                self.deliver(message)
                with self.lock:
                    self.at_work -= 1
            elif not self.wait_for_more():
                return

    def wait_for_more(self) -> bool:
        """Whether somebody is at work, who may send some."""
        with self.lock:
            return bool(self.at_work) and (self.lock.wait(0.01) or True)

    def take(self) -> Message | None:
        if not self.queue:
            return None
        self.at_work += 1
        message = self.queue.pop(self.random.randrange(len(self.queue)))
        if self.copies and self.random.random() < 0.6:
            self.copies -= 1
            self.queue.append(message)
        return message

    def deliver(self, message: Message) -> None:
        with contextlib.suppress(Exception):
            self.deliveries.deliver(message)

    def do_everything(self) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self.work, range(THREADS)))

    def kick_off(self) -> None:
        files = {name: {"file_name": name} for name in NAMES}
        self.publish("async_execute_bin", ["org", "wf", "ex", files], {"pipeline_id": "pipe"}, queue="api")

    def callback(self, **headers: str) -> None:
        self.publish("process_batch_callback_api", [[]], NAMED, queue="callbacks", headers=headers)


@pytest.mark.parametrize("seed", range(6))
def test_of_many_deliveries_at_once_none_reverts_an_end(seed: int) -> None:
    backend = Watched(batches=3)
    crowd = Crowd(backend, seed)
    crowd.kick_off()
    crowd.do_everything()
    for _ in range(3):
        crowd.callback()
        crowd.callback(**{REAPED: "it took too long"})
        crowd.kick_off()
    crowd.do_everything()
    assert set(backend.changes) <= ALLOWED
    assert backend.calls.count("end_execution") == 1
    assert backend.ended == (Status.COMPLETED, Counts(6, 6, 0), None)
    assert crowd.copies < COPIES
    assert crowd.fake.kept() <= {"api_results:wf:ex", "workers:execution:ex:ended"}


@pytest.mark.parametrize("ended", sorted(TERMINAL))
def test_what_comes_after_an_end_that_the_workers_did_not_write_leaves_it(ended: str) -> None:
    """The reaper has ended it, or somebody has stopped it, while batches and callbacks were still on their way."""
    backend = Watched(batches=3)
    crowd = Crowd(backend, 1)
    crowd.copies = 0
    crowd.kick_off()
    crowd.deliver(crowd.queue.pop())
    backend.changes.clear()
    backend.status = ended
    crowd.copies = COPIES
    crowd.callback()
    crowd.do_everything()
    assert backend.changes == []
    assert backend.status == ended
