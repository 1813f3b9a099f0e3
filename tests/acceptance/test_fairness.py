"""Many files, and tenants side by side: a small request does not wait for a large one, and memory stays what it was."""

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sandbox.driver import Driver, Run
from sandbox.stack import FOUR, Stack
from tests.acceptance.conftest import QUICK, Fleet
from tests.acceptance.test_executions import (
    counts,
    documents,
    finish,
    nothing_is_left,
    watch_until_a_file_is,
)

pytestmark = pytest.mark.timeout(900)

SLICE_SECONDS = float(QUICK["BATCH_SLICE_SECONDS"])
MEGABYTE = 1_048_576


def test_a_single_file_waits_about_a_slice_behind_another_tenants_large_batch(
    rabbitmq_url: str, start_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    stack, driver = start_fleet("api_deployment", "callback", broker_url=rabbitmq_url)
    argv = [sys.executable, "-P", "-m", "shared", "file_processing", "--concurrency", "1"]
    stack.start("file_processing", argv, stack.environment(**QUICK))
    stack.wait_until_ready()
    large, small = driver.deploy("large", batches=1), driver.deploy("small", batches=1)
    driver.control("PUT", "switches", {"tool_seconds": 0.5})
    slow = driver.post(large, documents(tmp_path, 16))
    watch_until_a_file_is(driver, slow, "EXECUTING")
    quick = finish(driver, driver.post(small, documents(tmp_path, 1)))
    assert counts(quick) == ("COMPLETED", 1, 1, 0)
    assert quick.stages["ended"] < 3 * SLICE_SECONDS  # of the four and more that the large one takes
    slow.see(driver.control("GET", f"executions/{slow.execution_id}/"))
    assert not slow.ended
    assert counts(finish(driver, slow)) == ("COMPLETED", 16, 16, 0)
    assert driver.control("GET", "stats")["tool_runs"]["max"] == 1


def memory(stack: Stack) -> dict[str, int]:
    """What each worker holds of the machine's."""
    return {name: psutil.Process(stack.parts[name].pid).memory_info().rss for name in FOUR}


def large_request(stack: Stack, driver: Driver, folder: Path, count: int) -> Run:
    """Through it, and with everything about it right."""
    deployment = driver.deploy("large", batches=8)
    driver.control("PUT", "switches", {"tool": "echo"})
    driver.control("DELETE", "stats")
    run = finish(driver, driver.post(deployment, documents(folder, count)), 800)
    assert counts(run) == ("COMPLETED", count, count, 0)
    stats = driver.control("GET", "stats")
    assert (stats["tool_runs"]["total"], stats["tool_runs"]["max"]) == (count, 1)
    # A batch handed back in the midst of a file asks for its row again.
    assert stats["http_requests"] <= 3.1 * count + 100
    assert len(driver.results(deployment, run)) == count
    nothing_is_left(stack)
    return run


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("count", "megabytes"),
    [(1_000, 40), (10_000, 150)],
    ids=str,
)
def test_thousands_of_files_in_one_request(
    start_fleet: Callable[..., Fleet], tmp_path: Path, count: int, megabytes: int
) -> None:
    stack, driver = start_fleet()
    (tmp_path / "first").mkdir()
    large_request(stack, driver, tmp_path / "first", 100)  # what is loaded once is not what grows
    before = memory(stack)
    (tmp_path / "second").mkdir()
    large_request(stack, driver, tmp_path / "second", count)
    grown = {name: (held - before[name]) / MEGABYTE for name, held in memory(stack).items()}
    assert max(grown.values()) < megabytes, grown
