"""`workers routing` as an operator types it, workers that refuse to start, and the registry's limits in real pools."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Consumer

from sandbox.stack import Stack, wait_for
from shared.celery_settings import platform_queue
from tests.acceptance.probes import Probes, probes

ROOT = Path(__file__).resolve().parents[2]
WORKERS = str(Path(sys.executable).with_name("workers"))
Ran = subprocess.CompletedProcess[str]


def run(*argv: str, cwd: Path = ROOT, **variables: str) -> Ran:
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("command", [(WORKERS, "routing", "verify"), (sys.executable, "scripts/verify_routing.py")])
def test_the_table_is_proved_without_any_configuration(command: tuple[str, ...]) -> None:
    ran = run(*command, PYTHONPATH=str(ROOT))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith("tasks routed\n")


def test_the_table_is_shown() -> None:
    ran = run(WORKERS, "routing", "show")
    words = [line.split() for line in ran.stdout.splitlines()]
    assert words[0] == ["TASK", "QUEUE", "PRIORITY", "CONSUMED", "BY"]
    assert ["process_file_batch", "file_processing", "low"] in [row[:3] for row in words]


def test_profiles_that_leave_a_queue_without_consumer_are_told_apart() -> None:
    ran = run(WORKERS, "routing", "verify", "--profiles", "fast,callback")
    assert ran.returncode == 1
    assert "queue api_file_processing has no consumer in fast,callback; deploy one of file_processing" in ran.stdout
    assert run(WORKERS, "routing", "verify", "--profiles", "fast, slow").returncode == 0
    ran = run(WORKERS, "routing", "verify", "--profiles", "fats")
    assert ran.returncode == 2
    assert "did you mean fast?" in ran.stderr


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The project's code, to be broken."""
    skipped = {".venv", ".git", "tests", "sandbox"}
    for folder in ROOT.iterdir():
        if folder.is_dir() and folder.name not in skipped and not folder.name.startswith("."):
            for source in folder.rglob("*.py"):
                target = tmp_path / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    return tmp_path


SETTINGS = {
    "ENVIRONMENT": "development",
    "INTERNAL_API_BASE_URL": "http://127.0.0.1:9/internal",
    "INTERNAL_SERVICE_API_KEY": "unused",
    "CELERY_BROKER_URL": "redis://127.0.0.1:9/0",
    "CACHE_REDIS_HOST": "127.0.0.1",
}


@pytest.mark.parametrize(
    ("file", "old", "broken", "said"),
    [
        (
            "file_processing/tasks.py",
            '"process_file_batch",',
            '"process_files_batch",',
            "the rule for process_file_batch matches no task in profile {profile}; did you mean process_files_batch?",
        ),
        (
            "config/queue_routing.py",
            '    Route("process_file_batch", "file_processing", ("api_file_processing",)),\n',
            "",
            "task process_file_batch (file_processing.tasks.process_file_batch) has no rule",
        ),
    ],
    ids=["renamed", "deleted"],
)
def test_a_broken_table_stops_the_verification_and_the_start(
    copied: Path, file: str, old: str, broken: str, said: str
) -> None:
    text = (copied / file).read_text()
    assert old in text
    (copied / file).write_text(text.replace(old, broken))
    path = {"PYTHONPATH": str(copied)}
    verified = run(sys.executable, "-m", "shared.commands.routing", "verify", cwd=copied, **path)
    assert verified.returncode == 1
    assert said.format(profile="file_processing") in verified.stdout
    started = run(sys.executable, "-m", "shared", "slow", cwd=copied, **path, **SETTINGS)
    assert started.returncode == 1
    assert "workers: slow cannot start:" in started.stderr
    assert said.format(profile="slow") in started.stderr
    assert "Traceback" not in started.stderr


def verified_against(broker_url: str, *more: str) -> list[str]:
    ran = run(WORKERS, "routing", "verify", "--broker", broker_url, *more)
    assert ran.returncode == (0 if ran.stdout.endswith("tasks routed\n") else 1), ran.stderr
    return ran.stdout.splitlines()


def test_a_live_rabbitmq_is_compared(rabbitmq_url: str) -> None:
    lines = verified_against(rabbitmq_url)
    assert "queue celery does not exist there; start a worker that has it, or messages to it are lost" in lines
    with Connection(rabbitmq_url) as connection, connection.channel() as channel:
        quorum = Queue("celery", Exchange("celery", "direct"), "celery", queue_arguments={"x-queue-type": "quorum"})
        quorum(channel).declare()
    lines = verified_against(rabbitmq_url)
    assert "queue celery has no consumer there, and 0 messages; start a worker that has it" in lines
    assert any(line.startswith("queue celery is not classic there (") for line in lines)
    assert not any(
        line.startswith("queue celery is not") for line in verified_against(rabbitmq_url, "--queue-type=quorum")
    )


@pytest.mark.parametrize("broker", [pytest.param("redis", marks=pytest.mark.matrix), "rabbitmq"])
def test_a_fleet_that_lives_is_in_order_and_a_stranger_is_named(broker: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("rabbitmq_url") if broker == "rabbitmq" else None
    with Stack(url) as stack:
        stack.start_redis()
        stack.wait_until_ready()
        stack.start_workers("fast", "slow")
        stack.wait_until_ready()
        assert verified_against(stack.broker_url, "--profiles=fast,slow")[-1].endswith("tasks routed")
        stack.stop_and_wait("slow")
        del stack.parts["slow"]
        argv = [sys.executable, "-P", "-m", "shared", "default", "--queues=celery,elsewhere"]
        stack.start("default", argv, stack.environment())
        stack.wait_until_ready()
        lines = verified_against(stack.broker_url)
        assert sorted(line.partition(" has no consumer there")[0] for line in lines if "no consumer" in line) == [
            "queue api_file_processing",
            "queue file_processing",
            "queue workers_workflow_low",
        ]
        assert any(line.startswith("default@") and "consumes elsewhere, which no rule has" in line for line in lines)
        if url:
            stack.stop_and_wait("default")
            with Connection(url) as connection, connection.channel() as channel:
                channel.queue_delete("elsewhere")
                channel.exchange_delete("elsewhere")


def test_workers_that_are_alone_say_so_and_others_are_named(rabbitmq_url: str) -> None:
    """Before ours take over queues: a fan-in that others began is not ours to finish."""
    alone = ("--profiles=fast,slow", "--alone")
    with Stack(rabbitmq_url) as stack, Connection(rabbitmq_url) as connection:
        stack.start_redis()
        stack.wait_until_ready()
        assert verified_against(rabbitmq_url, *alone) == ["15/15 tasks routed"]
        stack.start_workers("fast", "slow")
        stack.wait_until_ready()
        assert verified_against(rabbitmq_url, *alone) == ["15/15 tasks routed"]
        argv = [
            sys.executable,
            "-m",
            "celery",
            "--broker",
            rabbitmq_url,
            "worker",
            "-Q",
            "celery",
            "--pool=solo",
            "-nold@here",
        ]
        stack.start("other", argv)
        silent = platform_queue("scheduler", "classic")(connection.default_channel)
        with Consumer(connection.default_channel, [silent], on_message=print):
            named = "old@here consumes celery, and is no worker of ours; stop it first, or use a vhost of your own"
            wait_for(lambda: named in verified_against(rabbitmq_url, *alone), 30, "the other worker to be named")
            assert verified_against(rabbitmq_url, *alone) == [
                named,
                "queue scheduler has 1 consumers that do not answer; find out whose they are, and stop them",
            ]


def test_without_an_address_the_broker_is_that_of_the_environment(redis_url: str) -> None:
    ran = run(WORKERS, "routing", "verify", "--broker", "--profiles=all", CELERY_BROKER_URL=redis_url)
    assert "queue celery has no consumer there" in ran.stdout
    ran = run(WORKERS, "routing", "verify", "--broker")
    assert ran.returncode == 2
    assert "CELERY_BROKER_URL is not set" in ran.stderr
    assert "--alone needs --broker" in run(WORKERS, "routing", "verify", "--alone").stderr


def test_the_broker_that_is_asked_is_the_one_that_was_named(redis_url: str) -> None:
    """Celery would ask the one of the environment."""
    ran = run(WORKERS, "routing", "verify", "--broker", redis_url, CELERY_BROKER_URL="amqp://guest:guest@127.0.0.1:9//")
    assert "queue celery has no consumer there" in ran.stdout
    for url in ("", "http://127.0.0.1", "memory://"):
        ran = run(WORKERS, "routing", "verify", "--broker", url)
        assert ran.returncode == 2
        assert "it must be an address that starts with amqp://" in ran.stderr


def test_a_worker_has_the_broker_of_its_settings(redis_url: str) -> None:
    """Blanks are no part of it, and no variable of Celery's own moves it elsewhere."""
    with Stack() as stack:
        stack.start_redis()
        stack.wait_until_ready()
        elsewhere = {f"CELERY_BROKER_{kind}_URL": redis_url for kind in ("READ", "WRITE")}
        stack.start_workers("callback", CELERY_BROKER_URL=f"{stack.broker_url} ", **elsewhere)
        stack.wait_until_ready()
        lines = verified_against(stack.broker_url, "--profiles", "callback")
        assert not any("file_processing_callback" in line for line in lines)


def test_a_broker_that_is_away_is_no_traceback() -> None:
    lines = verified_against("amqp://guest:guest@127.0.0.1:9//")
    assert lines[-1].startswith("the broker cannot be asked: ")


@pytest.fixture
def start(rabbitmq_url: str) -> Iterator[Callable[..., Probes]]:
    with probes(rabbitmq_url, BATCH_SLICE_SECONDS="1", INTERNAL_API_TIMEOUT="0.5", TASK_DEADLINE_SECONDS="1") as found:
        yield lambda **settings: Probes(found.stack, {**found.settings, **settings})


def test_a_task_beyond_its_soft_limit_is_interrupted_and_tried_again(start: Callable[..., Probes]) -> None:
    here = start(PROBE_POOL="prefork", PROBE_SOFT_TIME_LIMIT="2", PROBE_RETRY_DELAY="0.05")
    here.start("one")
    task_id = here.send("probe.wedge", 60)
    first, second = here.await_events("began", 2, 15, task_id)[:2]
    assert 1.5 < second.at - first.at < 8


def test_a_process_beyond_its_hard_limit_is_killed_and_its_message_delivered_again(
    start: Callable[..., Probes],
) -> None:
    here = start(PROBE_POOL="prefork", PROBE_CONCURRENCY="1", PROBE_TIME_LIMIT="2")
    here.start("one")
    task_id = here.send("probe.wedge", 60)
    first, second = here.await_events("began", 2, 15, task_id)[:2]
    assert first.pid != second.pid
    assert not here.events("ended")


@pytest.mark.matrix
def test_processes_are_recycled_after_their_number_of_tasks(start: Callable[..., Probes]) -> None:
    here = start(PROBE_POOL="prefork", PROBE_CONCURRENCY="1", PROBE_MAX_TASKS_PER_CHILD="2")
    here.start("one")
    for _ in range(6):
        here.send("probe.work", 0.0)
    pids = [event.pid for event in here.await_events("ended", 6, 20)]
    assert len(set(pids)) == 3


def test_processes_come_and_go_with_the_work_and_a_command_has_the_last_word(
    start: Callable[..., Probes],
) -> None:
    here = start(PROBE_POOL="prefork", PROBE_CONCURRENCY="1")
    part = here.start("one", "--autoscale=3,1", AUTOSCALE_KEEPALIVE="1")
    for _ in range(3):
        here.send("probe.work", 4.0)
    assert len({event.pid for event in here.await_events("began", 3, 15)}) == 3
    assert [line["slots"] for line in here.log(part, "worker_ready")] == [3]
    wait_for(lambda: len(psutil.Process(part.pid).children()) == 1, 20, "two of three processes to end")
    here.await_events("ended", 3, 1)
    here.await_events("ended", 1, 10, here.send("probe.work", 0.0))
    other = here.start("two", "--pool=threads", "--concurrency=4", PROBE_TIME_LIMIT="5")
    ready = here.log(other, "worker_ready")[0]
    assert (ready["pool"], ready["slots"]) == ("threads", 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--autoscale=6,2",), "--autoscale is set, and the pool of threads has no such limit: make it prefork"),
        (
            ("-P", "prefork", "--time-limit=10"),
            "FILE_PROCESSING_TIME_LIMIT is 10, and must be above",
        ),
        (("-P", "gevent", "-c", "x"), "--concurrency must be a whole number from 1 to 1000; 'x' is not"),
        (("-P", "prefork", "--autoscale=2,6"), "--autoscale must be the most and the fewest processes"),
        (("-Q", "celery"), "the rule for async_execute_bin matches no task in profile file_processing"),
    ],
)
def test_the_command_line_is_held_to_the_same_rules(options: tuple[str, ...], said: str) -> None:
    ran = run(sys.executable, "-m", "shared", "file_processing", *options, cwd=ROOT, **SETTINGS)
    assert ran.returncode == 1
    assert "workers: file_processing cannot start:" in ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
