"""The README's commands, as a newcomer types them; the test command aside, since this is it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [
    block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
]
FIRST = ["uv run workers demo", "uv run pytest"]
CHECK = "uv run workers check"
# Run by tests/acceptance/test_life_cycle.py, test_routing.py, test_logs.py, test_beat.py, test_status.py,
# test_top.py, test_storm.py, test_bench.py (a part), test_workflow_demo.py and test_workflow_command.py.
ELSEWHERE = [
    "uv run workers bench --quick",
    "uv run workers check --orphans ORGANIZATION WORKFLOW",
    "uv run workers logs EXECUTION --follow",
    "uv run workers routing show",
    "uv run workers routing verify --profiles fast,slow",
    "uv run workers routing verify --broker amqp://workers:secret@rabbitmq:5672//",
    "uv run workers schedule list",
    "uv run workers status EXECUTION --watch",
    "uv run workers storm --minutes 1 --seed 7",
    "uv run workers top",
    "uv run workers demo --workflow",
    "WORKFLOW_MODULES=sandbox.workflows.document_processing uv run workers workflow graph document-processing",
]
# Run by tests/acceptance/deploy, which needs an engine.
DEPLOY = "scripts/deploy.sh --environment development --action "
# The workers of `uv run` start the same way without it; with it, the environment would be made again each time.
UV_RUN = "uv run "


def own(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def worker_commands() -> list[tuple[str, str]]:
    """(folder, command) of every command that runs a worker, or beat."""
    found, folder = [], "."
    for line in (line for block in BLOCKS for line in block):
        if line.startswith("cd "):
            folder = line.removeprefix("cd ")
        elif line.startswith(UV_RUN) and line not in {*FIRST, CHECK, *ELSEWHERE}:
            found.append((folder, line.removeprefix(UV_RUN)))
    return found


def test_the_two_commands_come_first() -> None:
    assert BLOCKS[0] == FIRST


def test_every_line_is_known_to_these_tests() -> None:
    known = {f"{UV_RUN}{command}" for _, command in worker_commands()} | {*FIRST, CHECK, *ELSEWHERE}
    rest = [line for block in BLOCKS for line in block if line not in known]
    assert all(line.startswith(("export ", "cd ", DEPLOY)) for line in rest)


def test_the_environment_shown_is_the_one_needed(tmp_path: Path) -> None:
    """Each exported variable is needed, and with addresses of this machine a worker starts with nothing else."""
    (tmp_path / "key").write_text("a-key-that-nobody-knows")
    exported = dict(
        line.removeprefix("export ").split("=", 1) for block in BLOCKS for line in block if line.startswith("export ")
    )
    exported["INTERNAL_SERVICE_API_KEY_FILE"] = str(tmp_path / "key")
    with Stack() as stack:
        stack.start_redis()
        exported |= {"CELERY_BROKER_URL": stack.redis_url, "CACHE_REDIS_HOST": "127.0.0.1", "LOG_FORMAT": "json"}
        stack.start("documented", [own("workers"), "run", "all"], {"PATH": "/usr/bin:/bin", **exported})
        stack.wait_until_ready()


@pytest.mark.parametrize(("folder", "command"), worker_commands(), ids=[command for _, command in worker_commands()])
def test_a_worker_command_runs_a_worker(folder: str, command: str) -> None:
    program, *arguments = shlex.split(command)
    with Stack() as stack:
        stack.start_redis()
        stack.wait_until_ready()
        stack.start("shown", [own(program), *arguments], cwd=str(ROOT / folder))
        stack.wait_until_ready()


def test_the_check_finds_a_whole_stack_well() -> None:
    assert [CHECK] in BLOCKS
    program, *arguments = shlex.split(CHECK.removeprefix(UV_RUN))
    with Stack() as stack:
        stack.start_redis()
        stack.start_backend()
        stack.wait_until_ready()
        ran = subprocess.run([own(program), *arguments], env=stack.environment(), capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout
