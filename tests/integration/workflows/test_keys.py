"""What is kept of a run, for how long, and by which key it is found."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.errors import BrokerError
from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow
from shared.workflows.errors import RunKeyError, UnknownRunError
from shared.workflows.run_reads import REGISTER_KEY
from shared.workflows.shape import RunStatus
from tests.conformance.drawn import declare
from tests.integration.workflows.desk import Desk, Died, desk
from tests.integration.workflows.test_deaths import BROKEN, FORKED

RETENTION = 60


@pytest.fixture
def fleet(redis_url: str) -> Iterator[Desk]:
    with desk(redis_url, WORKFLOW_RETENTION_SECONDS=str(RETENTION)) as found:
        yield found


def kept(fleet: Desk) -> dict[str, int]:
    """The keys and how long they live, but for the lease on the sweeper's round."""
    return {key: fleet.redis.ttl(key) for key in fleet.all_keys() if not key.startswith("workers:workflows:claims")}


def check_kept(fleet: Desk, run_id: str, *, more: int = 0) -> None:
    found, own = kept(fleet), f"workers:workflow:{run_id}:"
    names = {key.removeprefix(own) for key in found if key.startswith(own)}
    assert names <= {"run", "steps", "outputs", "events", "ended"}
    assert len(found) == len(names) + more
    assert all(RETENTION - 5 <= seconds <= RETENTION for seconds in found.values()), found
    outputs: Any = fleet.redis.hkeys(own + "outputs")
    assert not [name for name in outputs if "/" in name]


@pytest.mark.parametrize("drawn", [FORKED, BROKEN], ids=lambda drawn: drawn.name)
@pytest.mark.parametrize("how", ["runs", "cancelled", "dies"])
def test_of_an_ended_run_little_is_left_and_nothing_is_for_ever(
    fleet: Desk, tmp_path: Any, drawn: Any, how: str
) -> None:
    client = fleet.client(declare(drawn))
    for at in range(1, 75, 1 if how == "dies" else 7):
        run_id = client.start_workflow(drawn.name, {"journal": str(tmp_path / "j")}, run_key=f"{at}")
        fleet.fate.left = at if how == "dies" else None
        for turn in range(1_000):
            if not fleet.messages:
                break
            message = fleet.messages.pop(0)
            if fleet.deliver(message) == "died":
                fleet.messages.append(message)
            if how == "cancelled" and turn == at // 4:
                client.cancel(run_id)
            alive = [key for key, seconds in kept(fleet).items() if seconds < 0]
            assert set(alive) <= {REGISTER_KEY, f"{REGISTER_KEY}:deadlines"}
        fleet.fate.left = None
        assert client.status(run_id).ended is not None
        assert not fleet.redis.zcard(REGISTER_KEY)
        assert not fleet.redis.zcard(f"{REGISTER_KEY}:deadlines")
        check_kept(fleet, run_id, more=1)
        fleet.redis.flushdb()


def test_what_is_said_after_the_end_leaves_nothing(fleet: Desk, tmp_path: Any) -> None:
    """The end may come between any two things that a delivery does."""
    client = fleet.client(declare(FORKED))
    at = 0
    while True:
        at += 1
        run_id = client.start_workflow("forked", {"journal": str(tmp_path / "j")})
        ending = Ending(fleet, run_id, at)
        fleet.drain()
        if ending.left > 0:
            break
        ending.stop()
        fleet.redis.zremrangebyscore(f"{REGISTER_KEY}:deadlines", "-inf", "+inf")
        check_kept(fleet, run_id)
        fleet.redis.flushdb()
    ending.stop()
    assert at > 40


class Ending:
    """Cancels a run before the so-manieth thing that a delivery asks for."""

    def __init__(self, fleet: Desk, run_id: str, at: int) -> None:
        self.fleet, self.run_id, self.left = fleet, run_id, at
        self.before = fleet.fate.ask
        fleet.fate.ask = self.ask  # type: ignore[method-assign]

    def ask(self) -> None:
        self.left -= 1
        if not self.left:
            self.fleet.engine.cancel(self.run_id)

    def stop(self) -> None:
        self.fleet.fate.ask = self.before  # type: ignore[method-assign]


@workflow(name="keyed")
class Keyed(BaseWorkflow):
    @task(name="one")
    def one(self, input_data: Any, _ctx: TaskContext) -> Any:
        return input_data

    @task(name="other")
    def other(self, input_data: Any, _ctx: TaskContext) -> Any:
        return input_data


def test_sixteen_that_start_at_once_with_one_key_start_one_run(fleet: Desk) -> None:
    client, together = fleet.client(Keyed), threading.Barrier(16)

    def start(_: int) -> str:
        together.wait()
        return client.start_workflow("keyed", 1, run_key="k", organization_id="a")

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(start, range(16)))) == 1
    assert len(fleet.messages) == 2
    with pytest.raises(RunKeyError, match="another input"):
        client.start_workflow("keyed", 2, run_key="k", organization_id="a")
    others = [client.start_workflow("keyed", 2, run_key="k", organization_id=one) for one in ("b", None)]
    assert len({*others, client.start_workflow("keyed", 1, run_key="k", organization_id="a")}) == 3


def test_a_start_that_cannot_be_sent_leaves_no_run_and_no_key(fleet: Desk) -> None:
    client = fleet.client(Keyed)
    for sent in range(2):
        left = [sent]

        def away(send: Any = fleet.send_task, left: list[int] = left) -> Any:
            def refuse(*args: Any, **options: Any) -> None:
                if not left[0]:
                    raise OSError("connection refused")
                left[0] -= 1
                send(*args, **options)

            return refuse

        fleet.engine._app.send_task = away()  # type: ignore[method-assign]
        with pytest.raises(BrokerError):
            client.start_workflow("keyed", 1, run_key="k")
    fleet.engine._app.send_task = fleet.send_task  # type: ignore[method-assign]
    fleet.drain()
    assert not fleet.redis.zcard(REGISTER_KEY)
    fleet.sweep()
    assert not fleet.messages
    run_id = client.start_workflow("keyed", 1, run_key="k")
    fleet.drain()
    assert client.result(run_id) == {"one": 1, "other": 1}


def test_a_key_is_forgotten_with_its_run(fleet: Desk) -> None:
    client = fleet.client(Keyed)
    run_id = client.start_workflow("keyed", 1, run_key="k")
    fleet.drain()
    for key, seconds in kept(fleet).items():
        if 0 < seconds <= RETENTION:  # its time has come
            fleet.redis.delete(key)
    with pytest.raises(UnknownRunError):
        client.status(run_id)
    again = client.start_workflow("keyed", 2, run_key="k")
    fleet.drain()
    assert client.status(again).status is RunStatus.SUCCEEDED


def test_a_starter_that_dies_leaves_nothing_for_ever(fleet: Desk) -> None:
    client = fleet.client(Keyed)
    for at in range(1, 4):
        fleet.fate.left = at
        with pytest.raises(Died):
            client.start_workflow("keyed", at)
        fleet.fate.dead = False
        fleet.fate.left = None
        for run_id in fleet.redis.zrange(REGISTER_KEY, 0, -1):
            fleet.drain()
            assert fleet.sweep_to_the_end(client, str(run_id)).status is RunStatus.SUCCEEDED
