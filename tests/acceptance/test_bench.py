"""`workers bench`, as it is typed: a part of it, since all of it takes minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as bench
from tests.benchmarks.figures import Aim, Figure, table

WORKERS = str(Path(sys.executable).parent / "workers")


@pytest.mark.timeout(180)
def test_it_counts_what_a_run_asks_of_the_backend_and_says_so_as_table_and_json(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    command = [WORKERS, "bench", "--quick", "--only", "requests", "--broker", "redis", "--json", str(written)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(written.read_text())
    figures = {one["name"]: one for one in found["figures"]}
    total = figures["of an execution with two files"]
    # Eight for the execution, three for each file: ARCHITECTURE.md, the life of an execution.
    assert (total["values"], total["met"], figures["of each file more"]["median"]) == ([14], True, 3)
    kinds = [one["median"] for name, one in figures.items() if name.startswith("`")]
    assert sum(kinds) == 14
    assert found["command"] == "uv run workers bench --quick --only requests --broker redis"
    assert "| Requests | of an execution with two files | 14 | ≤ 42: met | originals: 42 |" in ran.stdout


def test_a_part_that_there_is_not_is_refused() -> None:
    ran = subprocess.run([WORKERS, "bench", "--only", "luck"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "invalid choice: 'luck'" in ran.stderr


def test_a_figure_is_its_median_and_its_aim_is_met_by_that() -> None:
    least = Figure("Speed", "files", [70.0, 50.0, 61.0], "1/s", Aim(60, least=True))
    most = Figure("Speed", "a file", [1.25, 1.75], "x", Aim(1.1), "bare")
    plain = Figure("Weight", "memory", [1234], "MB")
    assert [one.met for one in (least, most, plain)] == [True, False, None]
    assert table([least, most, plain]).splitlines()[2:] == [
        "| Speed | files | 61 (50 to 70) 1/s | ≥ 60: met |  |",
        "|  | a file | 1.50 (1.25 to 1.75) x | ≤ 1.1: **missed** | bare |",
        "| Weight | memory | 1,234 MB |  |  |",
    ]


def test_readme_has_the_place_where_the_headlines_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(bench.README.read_text())
    monkeypatch.setattr(bench, "README", copy)
    shown = Figure("Speed", "shown", [1.5], "x", headline=True)
    bench.into_readme([shown, Figure("Speed", "not shown", [2.5], "x")], "by a test:")
    text = copy.read_text()
    assert "<!-- figures -->\nby a test:\n\n| | what |" in text
    assert "| Speed | shown | 1.50 x |  |  |\n<!-- end of figures -->" in text
    assert "not shown" not in text
