"""What a real worker process writes: each line in one shape, whoever says it, and no secret on any."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from general.log_records import LogRecords
from sandbox.stack import Stack, wait_for
from shared.execution_state import ExecutionState
from tests.acceptance.test_command_line import workers_of
from tests.acceptance.worker_that_crashes import LOGGERS

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (sys.executable, "-P", "-m", "tests.acceptance.worker_that_crashes")


def written(stack: Stack, folder: Path, **variables: str) -> list[str]:
    """What the worker that crashes writes to standard error, from its start to its end."""
    log = folder / "stderr"
    with log.open("wb") as stderr:
        worker = subprocess.Popen(
            [*PYTHON, "callback"],
            cwd=ROOT,
            env=stack.environment(**variables),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        try:
            wait_for(lambda: "said_it_all" in log.read_text(), 30, "all that is said")
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(20) == 1
        finally:
            worker.kill()
            worker.wait()
    return log.read_text().splitlines()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        stack.start_redis()
        stack.wait_until_ready()
        yield stack


def test_every_line_of_a_worker_is_json_whoever_says_it(stack: Stack, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in written(stack, tmp_path, LOG_LEVEL="DEBUG", LOG_FORMAT="json")
    ]
    assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in lines)
    said = {line["logger"] for line in lines if line["event"].startswith("cannot connect to amqp://***@host//")}
    assert set(LOGGERS) <= said
    by_event = {line["event"]: line for line in lines}
    assert by_event["process_crashed"]["level"] == "critical"
    assert by_event["thread_crashed"]["thread"] == "the-thread"
    for event in ("process_crashed", "thread_crashed", "error_ignored", "failed"):
        assert "RuntimeError: cannot connect to amqp://***@host//" in by_event[event]["exception"]
    assert any(line["logger"] == "py.warnings" and "password=***" in line["event"] for line in lines)
    shown = by_event["content_shown"]
    assert (shown["payload"], shown["text"], shown["token"]) == ("<dict, 1>", "<str, 7>", "***")
    assert "hunter2" not in json.dumps(lines)


def test_the_log_of_an_execution_is_printed_for_who_asks(stack: Stack) -> None:
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
        records = LogRecords(client, "records", 100, 100)
        records.append(
            "1", {"execution_id": "ex"}, {"timestamp": 1.5, "level": "INFO", "stage": "RUN", "text": "began"}
        )
        ExecutionState(client, 100, 10).forget("ex")
    ran = workers_of(stack, "logs", "ex", "--follow")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "1970-01-01 00:00:01.500+00:00  INFO     RUN  -  began\n"


def test_an_execution_that_nobody_knows_is_said_to_be_unknown(stack: Stack) -> None:
    ran = workers_of(stack, "logs", "another")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "workers: nothing is known here of an execution another" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_state_store_that_is_away_is_said_to_be(stack: Stack) -> None:
    ran = workers_of(stack, "logs", "ex", CACHE_REDIS_PORT="9")
    assert ran.returncode == 1
    assert ran.stderr.startswith("workers: the state store (CACHE_REDIS_*) failed")


@pytest.mark.matrix
def test_nothing_is_shown_on_a_terminal_either(stack: Stack, tmp_path: Path) -> None:
    text = "\n".join(written(stack, tmp_path, LOG_LEVEL="DEBUG", LOG_FORMAT="console"))
    assert "process_crashed" in text
    assert "Traceback" in text
    assert "hunter2" not in text
    for secret in (stack.key, stack.redis_password):
        assert secret not in text
