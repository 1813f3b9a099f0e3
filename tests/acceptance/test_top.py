"""`workers top` beside a running fleet, as a pipe has it."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sandbox.stack import Stack
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import documents, finish, watch_until_a_file_is


def top(stack: Stack, *options: str, **environment: str) -> str:
    ran = subprocess.run(
        [str(Path(sys.executable).with_name("workers")), "top", *options],
        env=stack.environment(**environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stderr == ""
    return ran.stdout


def row(view: str, name: str) -> list[str]:
    return next(line.split() for line in view.splitlines() if re.match(rf" *{re.escape(name)} ", line))


def test_the_fleet_is_shown_at_work(start_fleet: Callable[..., Fleet], tmp_path: Path) -> None:
    stack, driver = start_fleet("all")
    driver.control("PUT", "switches", {"tool_seconds": 3.0})
    deployment = driver.deploy("shown", 2)
    run = driver.post(deployment, documents(tmp_path, 4))
    watch_until_a_file_is(driver, run, "EXECUTING")
    view = top(stack, "--interval", "0.5")
    assert "executions open 1, overdue 0" in view
    assert "beat was never seen" in view
    assert "no answer" not in view
    (node,) = re.findall(r"(all@\S+)", view)[:1]
    assert row(view, node)[1:] in (["all", "1", "48", "closed"], ["all", "2", "48", "closed"])
    assert row(view, "api_file_processing")[1:4] in (["0", "1", "1"], ["0", "2", "1"])
    assert re.search(rf"process_file_batch +{run.execution_id} +api_file_processing +{node}", view)
    finish(driver, run)
    driver.control("PUT", "switches", {"reset": True})

    stack.broker_url = "redis://127.0.0.1:9/0"
    view = top(stack, "--once", "--interval", "0.2")
    assert "no answer from broker, workers" in view
