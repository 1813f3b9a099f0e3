"""A broker that goes away in the midst of a fan-out, over the fakes: the rest is sent later, or all ends in error."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from callback.tasks import process_batch_callback
from file_processing.tasks import process_file_batch
from shared.claims import Lease
from shared.entry import async_execute_bin
from shared.errors import AlreadyDone, BrokerError
from shared.models import Counts, Status
from shared.orchestration import batch_work
from tests.fakes import FakeApp, FakeBackend, Sent

FILES = {f"{name}.txt": {"file_name": f"{name}.txt"} for name in "abcd"}
QUEUE = "celery_api_deployments"


@dataclass
class Fading(FakeApp):
    """A broker that takes so many messages, and then no more."""

    takes: int = 0

    def send_task(self, task: str, **options: Any) -> None:
        self.broker_is_away = len(self.sent) >= self.takes
        super().send_task(task, **options)


def start(app: FakeApp) -> None:
    async_execute_bin.function(app.call("async_execute_bin", queue=QUEUE), "org", "wf", "ex", FILES)


def fading(takes: int) -> Fading:
    """An execution whose fan-out ended at that batch."""
    app = Fading(backend=FakeBackend(batches=4), takes=takes)
    with pytest.raises(BrokerError):
        start(app)
    assert len(app.sent) == takes
    app.takes = 1_000
    return app


def deliver(app: FakeApp, sent: Sent) -> Any:
    """As the seam would: only work that is neither done nor another's."""
    call = replace(app.call(sent.task), headers=sent.headers)
    lease = call.claims.take(batch_work(call))
    if lease is None:
        raise AlreadyDone
    assert isinstance(lease, Lease)
    return process_file_batch.function(call.under(lease), *sent.args)


def end(app: FakeApp) -> None:
    """Deliver every message, callbacks last."""
    messages = sorted(app.sent, key=lambda sent: sent.task != "process_file_batch")
    app.sent = []
    for sent in messages:
        if sent.task == "process_file_batch":
            deliver(app, sent)
        else:
            process_batch_callback.function(app.call(sent.task), *sent.args, **sent.kwargs)


@pytest.mark.parametrize("takes", [0, 1, 3])
def test_the_next_delivery_sends_what_was_not_sent_and_each_batch_counts_once(takes: int) -> None:
    app = fading(takes)
    start(app)
    assert {sent.headers["fan_in"]["batch"] for sent in app.sent} == {0, 1, 2, 3}
    first = {sent.headers["fan_in"]["batch"]: sent for sent in app.sent}
    app.sent = list(first.values())  # copies are dropped by their leases
    end(app)
    end(app)
    assert app.backend.ended == (Status.COMPLETED, Counts(4, 4, 0), None)
    assert app.backend.calls.count("start_execution") == 1


@pytest.mark.parametrize("takes", [0, 1, 3])
def test_a_fan_out_that_never_succeeds_ends_in_error_and_leaves_no_state(takes: int) -> None:
    app = fading(takes)
    orphans = app.sent[:]
    app.sent = []
    async_execute_bin.finalizer(app.call(queue=QUEUE), BrokerError("away"), "org", "wf", "ex", FILES)
    end(app)
    assert app.backend.ended == (Status.ERROR, Counts(4, 0, 4), "away")
    for sent in orphans:
        with pytest.raises(AlreadyDone):
            deliver(app, sent)
    assert app.kept() == {"workers:execution:ex:ended"}
    assert "execute_file" not in app.backend.calls


def test_a_batch_that_was_taken_before_the_start_was_given_up_writes_nothing_afterwards() -> None:
    app = fading(1)
    sent = app.sent.pop()
    call = replace(app.call(sent.task), headers=sent.headers)
    lease = call.claims.take(batch_work(call))
    assert isinstance(lease, Lease)
    async_execute_bin.finalizer(app.call(queue=QUEUE), BrokerError("away"), "org", "wf", "ex", FILES)
    end(app)
    with pytest.raises(AlreadyDone):
        process_file_batch.function(call.under(lease), *sent.args)
    call.claims.finish(lease)
    assert app.sent == []
    assert app.kept() <= {"workers:execution:ex:ended", "context:ex"}
