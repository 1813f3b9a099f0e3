"""Mutation tests of the circuit breaker and the retry policy: every change of their code is noticed by a test."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTATED = ("shared/circuit_breaker.py", "shared/retry_utils.py")
TESTS = ("test_circuit_breaker.py", "test_retry_utils.py")
CONFIGURATION = f"""
[tool.pytest.ini_options]
addopts = ["--import-mode=importlib"]
pythonpath = ["."]
[tool.mutmut]
source_paths = {list(MUTATED)}
pytest_add_cli_args_test_selection = ["tests"]
also_copy = ["shared", "monitoring", "config"]
"""
# Changes that no test can notice, because they change nothing. Why stands beside the code.
EQUAL = {
    "return random.uniform(0, min(cap, first * 2.0 ** min(attempt - 1, 61)))": "beyond any cap either way",
    "return state.outcome.exception() if (state.outcome) or True else None": "there always is an outcome",
}


def mutmut(folder: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return ran.stdout


@pytest.mark.matrix
@pytest.mark.timeout(600)
def test_every_change_of_breaker_and_retry_policy_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("mutmut", reason="it is in a group of its own: uv run --group mutation pytest -m matrix")
    for name in ("shared", "monitoring", "config"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in TESTS:
        shutil.copy(ROOT / "tests" / "unit" / name, tmp_path / "tests")
    (tmp_path / "pyproject.toml").write_text(CONFIGURATION)
    ran = mutmut(tmp_path, "run")
    count = int(re.findall(r"(\d+)/\1 ", ran)[-1])
    assert count > 200
    survivors = re.findall(r"(\S+): (?:survived|no tests|suspicious|timeout)", mutmut(tmp_path, "results"))
    unnoticed = [line for name in survivors for line in added(mutmut(tmp_path, "show", name))]
    assert [line for line in unnoticed if line.partition("  #")[0] not in EQUAL] == []


def added(difference: str) -> list[str]:
    return [line[1:].strip() for line in difference.splitlines() if re.match(r"\+[^+]", line)]
