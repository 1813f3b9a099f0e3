"""`workers status` beside a running fleet."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sandbox.stack import Stack
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import documents, finish, watch_until_a_file_is


def status(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("workers")), "status", *arguments]
    return subprocess.run(command, env=stack.environment(), capture_output=True, text=True, check=False, timeout=60)


def test_an_execution_is_shown_while_it_runs_and_after_it_ended(
    start_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    stack, driver = start_fleet("all")
    driver.control("PUT", "switches", {"tool_seconds": 2.0})
    deployment = driver.deploy("watched", 2)
    run = driver.post(deployment, documents(tmp_path, 4))
    watch_until_a_file_is(driver, run, "EXECUTING")
    shown = status(stack, run.execution_id)
    assert shown.returncode == 0, shown.stderr
    assert f"{run.execution_id}  EXECUTING  (API deployment" in shown.stdout
    assert "waits for  2 of 2 batches: 2 (0, 1) at work" in shown.stdout
    names = sorted(line.split()[0] for line in shown.stdout.splitlines() if line.startswith("  note-"))
    assert names == [f"note-000{number}.txt" for number in range(4)]
    assert shown.stdout.count(" queued") == 2, shown.stdout
    watched = status(stack, run.execution_id, "--watch")
    assert (watched.returncode, watched.stderr) == (0, "")
    last = watched.stdout.rpartition(run.execution_id)[2]
    assert last.startswith("  COMPLETED")
    assert "files      4 of 4 have ended" in last
    finish(driver, run)

    unknown = status(stack, run.execution_id)
    assert unknown.returncode == 1
    assert "with --organization the backend is asked" in unknown.stderr
    known = status(stack, run.execution_id, "--organization", "watched")
    assert "waits for  nothing: it has ended" in known.stdout
    assert status(stack, "00000000-0000-4000-8000-000000000000", "--organization", "watched").returncode == 1
