"""Beat as a process, killed, frozen, doubled and cut off: one run of each entry at each of its times."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from config.beat_schedule import ENTRIES
from sandbox.stack import FOUR, Part, Stack, wait_for
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_command_line import BIN, ROOT, WITNESS
from tests.acceptance.test_executions import events
from tests.acceptance.test_life_cycle import executions
from tests.proxy import proxied

TASK = "workers.release_expired_reservations"
QUEUE = "celery"
LOCK = "workers:beat::lock"
# Its lock ends 11 s after its death, and who waits for it looks thrice a second.
QUICK = {"LEASE_SECONDS": "1"}
TAKEN_OVER_SECONDS = 11 + 1


@dataclass
class Schedule:
    """A state store, a broker, and schedulers that are started one by one; nobody else takes what they send."""

    stack: Stack
    sent: list[str] = field(default_factory=list)

    def beat(self, name: str = "beat", **settings: str) -> Part:
        """Start a scheduler and wait until it sends, or waits for another."""
        part = self.stack.start_beat(name, **QUICK | settings)
        wait_for(lambda: self.stack.ready(name) or not self.stack.alive(name), 20, f"{name} to start")
        assert self.stack.alive(name), part.tail()
        return part

    def say(self, *arguments: str) -> str:
        """What `workers schedule` prints."""
        return schedule(self.stack, *arguments).stdout

    def receive(self, count: int, seconds: float) -> list[str]:
        """The ids of all that was sent, once there are so many."""
        wait_for(lambda: len(self.take()) >= count, seconds, f"{count} messages")
        return self.sent

    def take(self) -> list[str]:
        """The ids of all that was sent until now."""
        with Connection(self.stack.broker_url) as connection, connection.channel() as channel:
            Queue(QUEUE, Exchange(QUEUE, "direct"), QUEUE, channel=channel).declare()  # as the workers do
            while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
                assert message.headers["task"] == TASK
                self.sent.append(message.headers["id"])
        return self.sent

    def stop_between(self) -> None:
        """Stop beat just after it has sent: it says so before, and what it is stopped at is sent by the next."""
        self.receive(len(self.take()) + 1, 10)
        self.stack.stop_and_wait("beat")

    def forget_lock(self) -> None:
        """The lock ends, as if its time were over."""
        with redis.Redis.from_url(self.stack.redis_url) as store:
            assert store.delete(LOCK) == 1


def schedule(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(BIN / "workers"), "schedule", *arguments]
    return subprocess.run(command, env=stack.environment(), capture_output=True, text=True, check=True)


@contextmanager
def scheduled(broker_url: str | None = None) -> Iterator[Schedule]:
    with Stack(broker_url) as stack:
        stack.start_redis()
        stack.wait_until_ready()
        yield Schedule(stack)


def sendings(part: Part) -> int:
    return part.said().count("Scheduler: Sending due task tick")


def page(made: Schedule, name: str, path: str) -> dict[str, Any]:
    """What a scheduler answers over HTTP, which is well."""
    with closing(HTTPConnection("127.0.0.1", made.stack.health_ports[name], timeout=2)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        found: dict[str, Any] = json.loads(answer.read())
        return found


def test_a_restart_neither_forgets_nor_repeats(broker_url: str | None) -> None:
    with scheduled(broker_url) as made:
        made.say("set", "tick", "--task", TASK, "--every", "1")
        first = made.beat()
        made.receive(2, 10)
        made.say("disable", "process-log-history")
        made.say("set", "process-notification-buffer", "--cron", "0 3 * * *")
        made.stop_between()
        before = len(made.take())
        made.beat()
        sent = made.receive(before + 2, 5)  # its lock was given back
        listed = made.say("list")
        made.stop_between()
        said = first.said()  # both write there
        assert len(made.take()) == len(set(sent)) == sendings(first)
    assert re.search(r"^tick +\S+ +every 1 s +yes +20\d\d-\S+ \S+ +20\d\d-\S+ \S+ +operator$", listed, re.M)
    assert re.search(r"^process-log-history .* every 30 s +no +- +- +config/beat_schedule.py$", listed, re.M)
    assert re.search(r"^process-notification-buffer .* 0 3 \* \* \* +yes .* operator$", listed, re.M)
    assert "celery beat v5.7" in said
    assert "beat: Starting..." in said
    for unwanted in (made.stack.redis_password, "guest:guest", "Traceback"):
        assert unwanted not in said


def test_of_two_beats_one_sends_and_the_other_takes_over_when_it_is_killed() -> None:
    with scheduled() as made:
        made.say("set", "tick", "--task", TASK, "--every", "1")
        killed, waiting = made.beat("one"), made.beat("two")
        made.receive(3, 10)
        assert sendings(waiting) == 0
        assert [page(made, name, "/readyz")["status"] for name in ("one", "two")] == ["sends", "waits for the lock"]
        # Both for some seconds, in which both have gone round.
        assert all(page(made, name, "/livez")["loop_seen_seconds_ago"] < 2 for name in ("one", "two"))
        made.stack.kill("one")
        del made.stack.parts["one"]
        before = sendings(killed)
        sent = made.receive(before + 2, TAKEN_OVER_SECONDS + 3)
        assert "beat: Acquired lock" in waiting.said()
        assert page(made, "two", "/readyz")["status"] == "sends"
        # Some ten times have passed meanwhile: one run is for them all.
        assert len(sent) == len(set(sent)) <= before + sendings(waiting) <= before + 4


def test_a_run_that_was_sent_and_not_written_down_is_done_once(broker_url: str | None) -> None:
    with scheduled(broker_url) as made:
        made.say("set", "tick", "--task", TASK, "--every", "1")
        made.stack.start_workers("general")
        made.stack.wait_until_ready()
        script = str(Path(__file__).with_name("beat_that_dies.py"))
        environment = made.stack.environment(PYTHONPATH=str(ROOT), **QUICK)
        made.stack.start("dies", [sys.executable, script], environment)
        wait_for(lambda: not made.stack.alive("dies"), 15, "its death")
        del made.stack.parts["dies"]
        made.forget_lock()
        made.beat()
        wait_for(lambda: len(events(made.stack, "general", "task_ended")) >= 3, 15, "the next run")
        ended = events(made.stack, "general", "task_ended")
    # What it sent, the same once more, and what came next.
    assert [end["outcome"] for end in ended[:3]] == ["succeeded", "duplicate", "succeeded"]
    assert ended[0]["task_id"] == ended[1]["task_id"] != ended[2]["task_id"]


def freeze(made: Schedule, pid: int) -> None:
    """Beyond its lock's time, while another takes over."""
    os.kill(pid, signal.SIGSTOP)
    before = len(made.take())
    made.forget_lock()
    made.beat("another")
    made.receive(before + 1, 10)
    os.kill(pid, signal.SIGCONT)


def flush(made: Schedule, _pid: int) -> None:
    with redis.Redis.from_url(made.stack.redis_url) as store:
        store.flushdb()


@pytest.mark.parametrize("lose", [freeze, pytest.param(flush, marks=pytest.mark.matrix)])
def test_a_beat_that_lost_its_lock_ends_and_sends_nothing_more(lose: Callable[[Schedule, int], None]) -> None:
    with scheduled() as made:
        made.say("set", "tick", "--task", TASK, "--every", "1")
        environment = made.stack.environment(**QUICK)
        with subprocess.Popen(
            [str(BIN / "workers"), "beat"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as loser:
            made.receive(1, 10)
            lose(made, loser.pid)
            said, _ = loser.communicate(timeout=15)
        sent = list(made.take())
        if lose is flush:  # what operators had set is gone with the store; the file's entries are back
            made.beat("next")
            assert "process-log-history" in made.say("list")
    assert loser.returncode == 1
    assert said.splitlines()[-1].startswith("workers: beat ends, since another may send now: ")
    assert len(sent) == len(set(sent))


def test_what_operators_say_is_heard_while_beat_runs() -> None:
    with scheduled() as made:
        made.say("set", "tick", "--task", TASK, "--cron", "0 0 1 1 *")
        beat = made.beat()
        made.say("set", "tick", "--every", "1")
        made.receive(2, 10)
        made.say("disable", "tick")
        wait_for(lambda: sendings(beat) == len(made.take()), 5, "the last message")
        before = sendings(beat)
        made.say("set", "tock", "--task", TASK, "--every", "1")
        made.receive(before + 2, 10)  # of the other; of the first one there is none
        assert sendings(beat) == before
        made.say("enable", "tick")
        wait_for(lambda: sendings(beat) > before, 10, "the first one again")
        sent = made.take()
    assert len(sent) == len(set(sent))


def test_a_broker_outage_loses_no_run_and_ends_nothing(rabbitmq_url: str) -> None:
    with scheduled(rabbitmq_url) as made, proxied(rabbitmq_url) as between:
        made.say("set", "tick", "--task", TASK, "--every", "1")
        between.down()
        beat = made.beat(CELERY_BROKER_URL=between.url)
        for outage in (1, 2):
            wait_for(lambda known=outage: beat.said().count("is not sent yet") >= known, 20, "the outage")  # type: ignore[misc]
            assert made.take() == made.sent
            assert page(made, "beat", "/livez")["status"] == "alive"
            between.up()
            made.receive(len(made.sent) + 1, 15)
            if outage == 1:
                between.down()
        sent = made.take()
        assert made.stack.alive("beat")
    assert len(sent) == len(set(sent))


def test_the_process_has_no_task_in_it(tmp_path: Path) -> None:
    """Nor what tasks need, though all of it is installed beside it; nor what only they need in its environment."""
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    witness = tmp_path / "modules"
    with scheduled() as made:
        found = made.stack.environment(PYTHONPATH=str(tmp_path), WITNESS=str(witness), **QUICK)
        needed = {name: value for name, value in found.items() if "INTERNAL" not in name and "DATABASE" not in name}
        made.say("set", "tick", "--task", TASK, "--every", "1")
        part = made.stack.start("beat", [str(BIN / "workers"), "beat"], needed)
        made.receive(1, 15)
        os.kill(part.pid, signal.SIGUSR2)
        wait_for(witness.exists, 10, "its list of modules")
    imported = witness.read_text().splitlines()
    ours = {name for name in imported if name.partition(".")[0] in {"config", "shared", "scripts", "monitoring"}}
    assert ours == {
        "config",
        "config.beat_schedule",
        "config.queue_routing",
        "config.workers",
        "monitoring",
        "monitoring.server",
        "shared",
        "shared.application",
        "shared.celery_settings",
        "shared.config",
        "shared.contradictions",
        "shared.heartbeat",
        "shared.overrides",
        "shared.redis_connection",
        "shared.schedule_store",
        "shared.scheduler",
        "shared.variables",
        "shared.versions",
        "shared.without_extras",
    }
    others = {name.partition(".")[0] for name in imported}
    assert {"celery", "redbeat"} <= others
    unwanted = {"httpx", "pydantic", "structlog", "prometheus_client", "django", *FOUR}
    assert others & unwanted == set()


def test_the_schedule_s_tasks_do_their_work_and_an_operator_s_checks_see_them(
    rabbitmq_url: str, start_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    stack, driver = start_fleet("general", broker_url=rabbitmq_url)
    said = {"organization": "org", "workflow_type": "ETL", "name": "nightly", "source_folder": str(tmp_path)}
    made = driver.control("POST", "setup/", said | {"destination_table": "nightly"})
    with redis.Redis.from_url(stack.redis_url) as store:
        store.hset("workers:reservations:wf", "file", "execution 1")
        store.sadd("workers:reservations", "wf")
        for name, what in (("tick", ("--task", TASK)), ("nightly", ("--pipeline", "org", made["pipeline_id"]))):
            schedule(stack, "set", name, *what, "--every", "1")
        stack.start_beat(**QUICK)
        wait_for(lambda: len(executions(driver, made)) >= 2, 20, "two runs of the pipeline")
        schedule(stack, "disable", "nightly")
        assert not store.exists("workers:reservations:wf")
    assert {entry.task for entry in ENTRIES} <= set(operator(stack, "inspect", "registered").split())
    assert "empty" in operator(stack, "inspect", "scheduled")
    sent = operator(stack, "call", "process_log_history").strip()

    def ended(**wanted: str) -> list[dict[str, Any]]:
        found = events(stack, "general", "task_ended")
        return [end for end in found if wanted.items() <= end.items() and end["outcome"] == "succeeded"]

    wait_for(lambda: bool(ended(task_id=sent)), 10, "the task that was called")
    runs = {end["task_id"] for end in ended(task="scheduler.tasks.execute_pipeline_task")}
    assert len(executions(driver, made)) == len(runs)


def operator(stack: Stack, *arguments: str) -> str:
    """What Celery's own command prints in the folder of the general worker."""
    command = [str(BIN / "celery"), "-A", "worker", *arguments]
    folder = ROOT / "general"
    ran = subprocess.run(
        command, cwd=folder, env=stack.environment(), capture_output=True, text=True, check=False, timeout=30
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.matrix
def test_the_group_of_dependencies_is_enough(tmp_path: Path) -> None:
    """In an environment that has nothing else."""
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "env")}
    install = ["uv", "sync", "--quiet", "--frozen", "--only-group", "beat"]
    subprocess.run(install, cwd=ROOT, env=environment, check=True)
    found = {path.name for path in (tmp_path / "env").glob("lib/*/site-packages/*")}
    assert not found & {"httpx", "pydantic", "structlog", "prometheus_client", "django"}
    with scheduled() as made:
        made.say("set", "tick", "--task", TASK, "--every", "1")
        python = str(tmp_path / "env/bin/python")
        zone = {"SCHEDULE_TIMEZONE": "Europe/Berlin", "PYTHONTZPATH": ""}  # a system without any
        made.stack.start("beat", [python, "-m", "shared.beat"], made.stack.environment(**QUICK, **zone))
        made.receive(2, 15)


def test_a_start_says_what_is_missing() -> None:
    ran = subprocess.run([str(BIN / "workers"), "beat"], env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert [line.partition(" is not set")[0] for line in ran.stderr.splitlines()[1:]] == [
        "CELERY_BROKER_URL",
        "CACHE_REDIS_HOST",
    ]


def test_a_store_that_is_away_ends_it_with_a_line() -> None:
    with Stack() as stack:
        ran = subprocess.run(
            [str(BIN / "workers"), "beat"], env=stack.environment(), capture_output=True, text=True, check=False
        )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("workers: beat ends, since the state store cannot be asked: ")
    assert stack.redis_password not in ran.stderr
