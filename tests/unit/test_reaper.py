"""What the reaper does for an execution of which nothing was heard, over the fakes."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import structlog

from callback.reaper import sweep
from callback.tasks import process_batch_callback
from config.workers import orchestration_of
from monitoring.registry import KEPT
from shared.backend_models import FileExecution
from shared.claims import Claim, Claims, Lease
from shared.errors import BackendUnavailableError
from shared.execution_state import Run
from shared.logging_utils import with_context
from shared.models import Counts, FileHash, FileResult, Status
from shared.orchestration import REAPED, batch_claim, fan_out, fold
from shared.passage import Passage, carrying
from shared.state_store import REGISTER_KEY
from tests.fakes import FakeApp, FakeBackend, known, request
from tests.unit.test_transitions import Watched

API = orchestration_of(is_api=True)
ROUND = Claim("workers:reaper", "round", 100)


def overdue(app: FakeApp) -> None:
    """Nothing was heard of any execution for a while."""
    for execution_id in app.redis.zrange(REGISTER_KEY, 0, -1):
        app.redis.zadd(REGISTER_KEY, {execution_id: 0})


def started(batches: int = 2) -> FakeApp:
    """An execution whose batches are on their way."""
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=batches))
    known(app)
    files = [FileHash(file_name=f"{number}.txt") for number in range(batches)]
    fan_out(app.call(), request(), API, files, batches)
    app.sent.clear()
    overdue(app)
    return app


def actions() -> Callable[[], dict[str, float]]:
    """What was done, and how often, since now."""
    names = ("alive", "batches_sent", "callback_sent", "waited", "ended", "struck_off", "failed")

    def count(name: str) -> float:
        return KEPT.value("workers_reaper_actions_total", action=name)

    before = {name: count(name) for name in names}
    return lambda: {name: count(name) - before[name] for name in names if count(name) > before[name]}


def looked(app: FakeApp, times: int = 1) -> dict[str, float]:
    """Let the reaper make its rounds over what is due."""
    done = actions()
    for _ in range(times):
        overdue(app)
        sweep(app.call())
    return done()


def test_what_makes_progress_is_not_looked_at() -> None:
    app = started()
    app.state.record_file("ex", "0/0/0.txt", FileResult(file="0.txt", status=Status.COMPLETED))
    done = actions()
    sweep(app.call())
    assert done() == {}


def test_batches_that_nobody_is_at_are_sent_again_and_looks_become_rarer() -> None:
    app = started()
    assert looked(app) == {"batches_sent": 1}
    assert [sent.headers["fan_in"]["batch"] for sent in app.sent] == [0, 1]
    waits = []
    for _ in range(8):
        looked(app)
        waits.append(round((app.redis.zscore(REGISTER_KEY, "ex") - time.time()) / app.settings.stall))
    assert waits == sorted(waits)
    assert waits[0] == 2
    run = app.state.run("ex")
    assert run is not None
    assert app.redis.zscore(REGISTER_KEY, "ex") <= run.deadline


def test_what_is_sent_again_is_of_the_same_request() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", total_files=1))
    with carrying(Passage("the-users")):
        known(app)
    fan_out(app.call(), request(), API, [FileHash(file_name="0.txt")], 1)
    app.sent.clear()
    with structlog.testing.capture_logs(processors=[with_context]) as lines:
        looked(app)
    assert [sent.headers["request_id"] for sent in app.sent] == ["the-users"]
    (line,) = [line for line in lines if line["event"] == "execution_looked_after"]
    assert (line["request_id"], line["execution_id"], line["organization_id"]) == ("the-users", "ex", "org")


def test_batches_at_work_are_left_alone() -> None:
    app = started()
    for number in range(2):
        assert isinstance(app.claims.take(batch_claim(app.call(), "ex", number)), Lease)
    assert looked(app) == {"alive": 1}
    assert app.sent == []


def test_a_callback_that_may_be_lost_is_sent_again_unless_one_is_at_work() -> None:
    app = started()
    for number in range(2):
        result = fold([FileResult(file=f"{number}.txt", status=Status.COMPLETED)], "org")
        app.state.record_batch("ex", number, result)
    assert looked(app) == {"callback_sent": 1}
    assert [sent.task for sent in app.sent] == ["process_batch_callback_api"]
    app.claims.take(app.state.claim("ex", "callback"))
    assert looked(app) == {"alive": 1}
    assert len(app.sent) == 1


def test_a_failed_start_whose_callback_was_lost_is_ended() -> None:
    app = FakeApp(backend=FakeBackend(total_files=2))
    known(app)
    app.state.fail("ex", "no tools", 2)
    assert looked(app) == {"callback_sent": 1}
    deliver_callback(app)
    assert app.backend.ended == (Status.ERROR, Counts(2, 0, 2), "no tools")


def deliver_callback(app: FakeApp) -> None:
    sent = app.sent.pop()
    process_batch_callback.function(app.call(**sent.headers), *sent.args, **sent.kwargs)


def test_a_start_that_was_lost_is_waited_for_and_then_ended() -> None:
    app = FakeApp(backend=FakeBackend(status="EXECUTING", is_api=True))
    known(app)
    app.claims.take(app.state.claim("ex", "orchestration"))
    assert looked(app) == {"alive": 1}
    app.redis.delete("workers:execution:ex:claims")
    assert looked(app) == {"waited": 1}
    assert app.sent == []
    assert looked(app) == {"ended": 1}
    deliver_callback(app)
    assert app.backend.ended is not None
    assert app.backend.ended[0] == Status.ERROR
    assert "lost before its files went out" in str(app.backend.ended[2])


def test_what_lost_its_plan_is_waited_for_and_then_ended_from_its_rows() -> None:
    app = started()
    app.redis.delete("workers:execution:ex:plan")
    assert looked(app, 3) == {"waited": 2, "ended": 1}
    app.backend.files = {"fe-1": ""}
    app.backend.rows = [FileExecution(id="fe-0", status="COMPLETED"), FileExecution(id="fe-1", status="EXECUTING")]
    deliver_callback(app)
    assert app.backend.ended is not None
    assert app.backend.ended[:2] == (Status.COMPLETED, Counts(2, 1, 1))
    assert app.backend.files == {"fe-1": "ERROR"}
    assert [item["status"] for item in app.pushed("api_results:wf:ex")] == ["Failed"]


def test_past_the_deadline_it_ends_whoever_is_at_it() -> None:
    app = started()
    app.claims.take(batch_claim(app.call(), "ex", 0))
    app.redis.hset("workers:execution:ex:run", "deadline", time.time() - 1)
    assert looked(app) == {"ended": 1}
    (sent,) = app.sent
    assert "did not end within" in sent.headers[REAPED]


@pytest.mark.parametrize("then", [Status.COMPLETED, Status.ERROR])
def test_an_error_becomes_completed_by_the_rows_alone(then: Status) -> None:
    app = FakeApp(backend=Watched(status="ERROR", total_files=1))
    known(app)
    app.backend.rows = [FileExecution(id="fe-0", status=then)]
    call = replace(app.call(), headers={REAPED: "it took too long"})
    process_batch_callback.function(call, [], execution_id="ex", organization_id="org")
    assert (app.backend.ended is not None) is (then is Status.COMPLETED)


def test_of_what_is_unknown_the_register_is_cleared() -> None:
    app = started()
    app.redis.delete("workers:execution:ex:run")
    with structlog.testing.capture_logs(processors=[with_context]) as lines:
        assert looked(app) == {"struck_off": 1}
    assert [line["execution_id"] for line in lines if line["event"] == "execution_unknown"] == ["ex"]
    assert app.state.due(time.time() + 1e9) == []


def test_a_broker_that_is_away_is_a_failure_of_that_look_and_the_next_one_helps() -> None:
    app = started()
    app.state.register(Run("another", "org", "wf", None, is_api=True))
    app.state.open_fan_in("another", 1, 1, {})
    app.broker_is_away = True
    assert looked(app) == {"failed": 1, "waited": 1}
    app.broker_is_away = False
    assert looked(app)["batches_sent"] == 1


def test_one_process_of_the_fleet_looks_at_a_time() -> None:
    app = started()
    another = Claims(app.redis, 15)
    sweeping = another.take(ROUND)
    assert isinstance(sweeping, Lease)
    assert looked(app) == {}
    another.release(sweeping)
    assert looked(app) == {"batches_sent": 1}
    assert looked(app) == {"batches_sent": 1}  # the round's own lease was given back
    another.close()


def test_what_is_kept_goes_only_after_the_end_is_written() -> None:
    """Mark first, then delete: the reaper must find what was not ended."""
    app = started(1)
    app.state.record_batch("ex", 0, fold([FileResult(file="0.txt", status=Status.COMPLETED)], "org"))
    named = {"execution_id": "ex", "organization_id": "org", "pipeline_id": "pipe"}
    for step in ("end_execution", "pipeline_notifications"):
        app.backend.refusals = {step: BackendUnavailableError("away")}
        with pytest.raises(BackendUnavailableError):
            process_batch_callback.function(app.call(), [], **named)
        assert app.state.run("ex") is not None
        assert looked(app) == {"callback_sent": 1}
    app.backend.refusals = {}
    process_batch_callback.function(app.call(), [], **named)
    assert app.state.run("ex") is None
    assert app.backend.calls.count("end_execution") == 2  # the first of which failed
