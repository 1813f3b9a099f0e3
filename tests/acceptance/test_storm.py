"""A storm, and what its judge finds in a platform that is really there."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from kombu.connection import Connection

from config.queue_routing import DEAD_LETTERS
from sandbox import servers
from sandbox.driver import Driver, Run
from sandbox.stack import FOUR, Stack, wait_for
from sandbox.storm.evidence import gather, queues
from sandbox.storm.judge import Evidence, judge
from sandbox.storm.plan import Blow
from sandbox.storm.supervisor import GRACE_SECONDS, Supervisor
from sandbox.storm.traffic import Traffic
from tests.acceptance.conftest import BACKEND, QUICK
from tests.acceptance.test_executions import finish
from tests.conftest import without

WORKERS = str(Path(sys.executable).with_name("workers"))
SEED = 20261121
COMBINATIONS = [
    # Its node is its own: no "rabbitmq" in the name keeps it out of the line for the one that all share.
    pytest.param("rabbitmq", "threads", "0.5", id="own-rabbit-threads-0.5"),
    pytest.param("rabbitmq", "threads", "1", marks=pytest.mark.matrix),
    pytest.param("rabbitmq", "prefork", "1", marks=pytest.mark.matrix),
    pytest.param("redis", "threads", "1", marks=pytest.mark.matrix),
    pytest.param("redis", "prefork", "1", marks=pytest.mark.matrix),
]


def needed(broker: str) -> None:
    if broker == "rabbitmq" and servers.rabbitmq_program() is None:
        without("RabbitMQ is not installed")


@pytest.mark.timeout(420)
@pytest.mark.parametrize(("broker", "pool", "minutes"), COMBINATIONS)
def test_a_storm_breaks_no_promise(broker: str, pool: str, minutes: str) -> None:
    needed(broker)
    argv = [WORKERS, "storm", "--minutes", minutes, "--seed", str(SEED), "--broker", broker, "--pool", pool]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module", params=["redis", pytest.param("rabbitmq", marks=pytest.mark.matrix)])
def quiet(request: pytest.FixtureRequest) -> Iterator[tuple[Stack, Driver, Traffic]]:
    """A platform whose users have had what they wanted, and that is quiet again."""
    needed(request.param)
    with ExitStack() as held:
        stack = held.enter_context(Stack())
        stack.start_redis(persistent=True)
        if request.param == "rabbitmq":
            stack.start_rabbitmq()
        else:
            stack.start_redis_broker()
        stack.wait_until_ready()
        stack.start_backend(**BACKEND)
        stack.start_workers(*FOUR, **QUICK)
        stack.wait_until_ready()
        driver = held.enter_context(Driver(stack))
        traffic = Traffic(driver, stack.folder / "documents", SEED, None)
        for send in (traffic.post, traffic.start_pipeline):
            traffic.attempt(send)
        for execution_id in traffic.sent:
            finish(driver, Run(execution_id))
        wait_for(lambda: judge(gather(stack, driver, traffic.sent)) == [], 20, "quiet")
        yield stack, driver, traffic


def found(quiet: tuple[Stack, Driver, Traffic]) -> tuple[Evidence, dict[str, str]]:
    """What there is, and what the judge says of it."""
    stack, driver, traffic = quiet
    evidence = gather(stack, driver, traffic.sent)
    return evidence, {violation.subject: violation.what for violation in judge(evidence)}


def test_the_judge_sees_what_there_is(quiet: tuple[Stack, Driver, Traffic]) -> None:
    _, _, traffic = quiet
    evidence, violations = found(quiet)
    assert violations == {}
    assert {row["id"]: row["total_files"] for row in evidence.executions} == traffic.sent
    assert {row["kind"] for row in evidence.executions} == {"API", "ETL"}
    files = [file for row in evidence.executions for file in row["files"]]
    assert {file["runs"] for file in files} == {1}
    assert sum(file["rows"] for file in files) + sum(map(len, evidence.results.values())) == len(files)
    assert {"celery", "celery_api_deployments"} <= evidence.queues.keys() or "unacked" in evidence.queues


def test_the_judge_sees_a_result_that_was_pushed_twice(quiet: tuple[Stack, Driver, Traffic]) -> None:
    stack, _, _ = quiet
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as store:
        (key,) = store.keys("api_results:*")
        (item,) = store.lrange(key, 0, 0)
        store.rpush(key, item)
        _, violations = found(quiet)
        assert violations == {key.rpartition(":")[2]: f"its file {json.loads(item)['file']} has 2 results"}
        store.rpop(key)


def test_the_judge_sees_what_is_left_in_broker_and_state_store(quiet: tuple[Stack, Driver, Traffic]) -> None:
    stack, _, _ = quiet
    with Connection(stack.broker_url) as connection, connection.SimpleQueue(DEAD_LETTERS) as letters:
        letters.put("left")
        # Taken, and not acknowledged: in no queue, and not done.
        held = letters.get(timeout=5)
        with redis.Redis.from_url(stack.redis_url) as store:
            store.set("workers:lease", "somebody's")
            wait_for(lambda: sum(queues(stack).values()) == 1, 10, "the message")
            _, violations = found(quiet)
            store.delete("workers:lease")
        held.ack()
    assert violations.pop("workers:lease") == "is left in the state store, for ever"
    assert list(violations.values()) == ["1 messages are left"]


@pytest.fixture
def supervised() -> Iterator[tuple[Stack, Supervisor]]:
    with Stack() as stack:
        stack.start("sleeper", ["sleep", "60"])
        yield stack, Supervisor(stack)


def ended(stack: Stack) -> Callable[[], bool]:
    return lambda: not stack.alive("sleeper")


@pytest.mark.parametrize("kind", ["kill", "end"])
def test_what_was_struck_down_comes_back_when_its_time_is_over(kind: str, supervised: tuple[Stack, Supervisor]) -> None:
    stack, supervisor = supervised
    first = stack.parts["sleeper"].pid
    supervisor.strike(Blow(10, kind, "sleeper", 5))  # type: ignore[arg-type]
    wait_for(ended(stack), 5, "its end")
    supervisor.look(14.9)
    assert not stack.alive("sleeper")
    supervisor.look(15)
    assert stack.alive("sleeper")
    assert stack.parts["sleeper"].pid != first
    assert supervisor.done["sleeper"] == {kind: 1}


def test_what_ends_by_itself_comes_back_at_once_and_is_counted(supervised: tuple[Stack, Supervisor]) -> None:
    stack, supervisor = supervised
    stack.stop_and_wait("sleeper")
    supervisor.look(1)
    assert stack.alive("sleeper")
    assert supervisor.done["sleeper"] == {"gone": 1}


def test_what_stands_still_goes_on_and_what_does_not_end_is_killed(supervised: tuple[Stack, Supervisor]) -> None:
    stack, supervisor = supervised
    supervisor.strike(Blow(0, "stop", "sleeper", 100))
    supervisor.strike(Blow(1, "end", "sleeper", 0))
    supervisor.look(GRACE_SECONDS)
    assert stack.alive("sleeper")  # a process that is stopped does not hear SIGTERM
    supervisor.look(1 + GRACE_SECONDS)
    wait_for(ended(stack), 5, "its end")
    supervisor.look(50)
    assert stack.alive("sleeper")
    assert supervisor.done["sleeper"] == {"stop": 1, "end": 1, "forced": 1}
    stack.kill("sleeper", signal.SIGKILL)


def test_ctrl_c_ends_a_storm_and_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    with log.open("w") as output:
        storm = subprocess.Popen([WORKERS, "storm", "--seed", "1"], env=environment, stdout=output, stderr=output)
    wait_for(lambda: "confirmed" in log.read_text(), 60, "the storm to begin")
    storm.send_signal(signal.SIGINT)
    assert storm.wait(30) == 130
    assert "Traceback" not in log.read_text()
    assert list(tmp_path.iterdir()) == [log]
