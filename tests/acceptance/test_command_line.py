"""`workers`, as a user types it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from config.workers import PROFILES
from sandbox.stack import FOUR, Stack, wait_for

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def workers(*arguments: str, cwd: Path = ROOT, **variables: str) -> "subprocess.CompletedProcess[str]":
    return typed(arguments, cwd, variables)


def workers_of(stack: Stack, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The same, with what the processes of a stack find in their environment."""
    return typed(arguments, ROOT, stack.environment(**variables))


def typed(arguments: Sequence[str], cwd: Path, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    environment = {"HOME": str(cwd), **variables, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        [str(BIN / "workers"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_names_the_commands() -> None:
    ran = workers("--help")
    assert ran.returncode == 0
    assert "demo" in ran.stdout
    assert "run" in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [(*name.split(), "--help") for name in ("run", "run all", "demo", "storm", "monitor", "logs")],
)
def test_every_command_explains_itself(arguments: tuple[str, ...]) -> None:
    ran = workers(*arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"Usage: workers {arguments[0]}" in ran.stdout


def test_a_typo_is_refused_with_the_nearest_name() -> None:
    ran = workers("run", "file-procesing")
    assert ran.returncode == 2
    assert "did you mean file_processing?" in ran.stderr


def test_a_start_without_configuration_names_every_variable() -> None:
    ran = workers("run", "callback")
    assert ran.returncode == 1
    for name in ("INTERNAL_API_BASE_URL", "INTERNAL_SERVICE_API_KEY", "CELERY_BROKER_URL", "CACHE_REDIS_HOST"):
        assert f"{name} is not set" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_demo_names_what_it_cannot_take_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "program.exe").touch()
    ran = workers("demo", "program.exe", "absent.pdf", cwd=tmp_path)
    assert ran.returncode == 2
    assert "program.exe: its type is not supported" in ran.stderr
    assert "absent.pdf: there is no such file" in ran.stderr
    assert ran.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--broker", "sqs://x"), "--broker: it must be an address, amqp://"),
        (("--broker", "amqp://guest:guest@127.0.0.1:1//"), "--broker: nothing answers at 127.0.0.1:1"),
        (("--broker", "amqp://host:port//"), "--broker: it must be an address, amqp://"),
        (("--database-url", "mysql://x"), "--database-url: it must be an address, postgresql://"),
        (("--output", "/nowhere/report.json"), "--output: /nowhere/report.json is not a file that can be written"),
        (("--output", ""), "is not a file that can be written"),
        (("--batches", "0"), "'--batches'"),
        (("--workers", "three"), "'--workers'"),
    ],
)
def test_the_demo_names_a_wrong_option_before_anything_starts(arguments: tuple[str, ...], said: str) -> None:
    ran = workers("demo", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr


def test_without_the_sandbox_the_demo_says_where_it_is() -> None:
    script = (
        "import sys\n"
        "sys.modules['sandbox'] = None\n"
        "from importlib import util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'sandbox' else find(name)\n"
        "from scripts.cli import main\n"
        "main(['demo'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "this is not installed here: sandbox" in ran.stderr


# Loaded by every Python process that finds it: writes its imported modules to a file when told to.
WITNESS = """
import os, signal, sys
def tell(*_):
    with open(os.environ["WITNESS"] + ".part", "w") as file:
        file.write("\\n".join(sys.modules))
    os.replace(os.environ["WITNESS"] + ".part", os.environ["WITNESS"])
signal.signal(signal.SIGUSR2, tell)
"""


@pytest.mark.parametrize("name", FOUR)
def test_a_worker_starts_in_its_own_folder(name: str, tmp_path: Path) -> None:
    """`python -m worker` there, and what it has imported once it consumes; `celery -A worker worker` there."""
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    witness, folder = tmp_path / "modules", str(ROOT / name)
    with Stack() as stack:
        stack.start_redis()
        stack.wait_until_ready()
        environment = stack.environment(
            PYTHONPATH=str(tmp_path), WITNESS=str(witness), DJANGO_SETTINGS_MODULE="sandbox.settings"
        )
        part = stack.start("python", [sys.executable, "-m", "worker"], environment, cwd=folder)
        queue = PROFILES[name].queues[0]
        celery = [str(BIN / "celery"), "-A", "worker", "worker", "--loglevel=debug", "-Q", queue]
        stack.start("celery", celery, stack.environment(), cwd=folder)
        stack.wait_until_ready()
        os.kill(part.pid, signal.SIGUSR2)
        wait_for(witness.exists, 10, "the worker's list of modules")
        log = stack.parts["celery"].log.read_text()
    imported = witness.read_text().splitlines()
    assert {"celery", "httpx", "shared.task", f"{name}.tasks"} <= set(imported)
    unwanted = {"django", "rest_framework", "sandbox", "opentelemetry"}
    assert [module for module in imported if module.partition(".")[0] in unwanted] == []
    assert '"level": "debug"' in log
    assert f".> {queue}" in log


@pytest.mark.parametrize(
    ("options", "slots"), [((), 16), (("--concurrency", "3"), 3), (("--autoscale", "5,2", "--pool", "prefork"), 5)]
)
def test_a_process_knows_how_many_tasks_it_runs_at_once(options: tuple[str, ...], slots: int) -> None:
    """Its connections to the backend are as many."""
    with Stack() as stack:
        stack.start_redis()
        stack.start("run", [str(BIN / "workers"), "run", "file_processing", *options])
        stack.wait_until_ready()
        part = stack.parts["run"]
        log = part.log.read_text()
        forked = [child for child in psutil.Process(part.pid).children() if child.is_running()]
    assert f'"slots": {slots},' in log
    assert bool(forked) is ("prefork" in options)
    assert '"level": "error"' not in log


def test_workers_run_becomes_the_worker() -> None:
    with Stack() as stack:
        stack.start_redis()
        stack.start("run", [str(BIN / "workers"), "run", "all", "--concurrency", "3"])
        stack.wait_until_ready()
        part = stack.parts["run"]
        assert "concurrency: 3 (thread)" in part.log.read_text()
        assert Path(f"/proc/{part.pid}/cmdline").read_text().split("\0")[1:5] == ["-P", "-m", "shared", "all"]
        os.kill(part.pid, signal.SIGTERM)
        wait_for(lambda: not stack.alive("run"), 15, "the worker to end")
