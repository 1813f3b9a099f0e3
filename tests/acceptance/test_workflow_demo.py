"""The demo by a workflow, beside the demo by messages and four workers: the same documents, the same results."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SAMPLES = ROOT / "sandbox" / "samples"
BY_WORKFLOW = ("--workflow", "--engine", "local")
ON_WORKERS = ("--workflow",)
pytestmark = pytest.mark.timeout(300)


def demo(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    start = [str(BIN / "workers"), "demo", *arguments]
    environment = os.environ | variables
    return subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)


def report(path: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    ran = demo(*arguments, "--output", str(path))
    assert ran.returncode == code, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def without_times(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert all(file.pop("seconds") > 0 for file in files)
    return files


@pytest.fixture(scope="module")
def by_messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = report(tmp_path_factory.mktemp("demo") / "messages.json")
    without_times(found["files"])
    return found


@pytest.mark.parametrize(
    "way", [pytest.param(BY_WORKFLOW, marks=pytest.mark.matrix), ON_WORKERS], ids=["local", "celery"]
)
def test_both_ways_give_the_same(way: tuple[str, ...], by_messages: dict[str, Any], tmp_path: Path) -> None:
    messages = by_messages
    workflow = report(tmp_path / "workflow.json", *way)
    files = without_times(workflow["files"])
    assert files == messages["files"]
    assert {file["file"] for file in files} == {path.name for path in SAMPLES.iterdir() if path.is_file()}
    (damaged,) = [file for file in files if file["status"] == "ERROR"]
    assert (damaged["file"], damaged["result"]) == ("damaged.pdf", None)
    assert damaged["error"].startswith("the PDF is damaged: its end is missing")

    counts = ("status", "total_files", "successful_files", "failed_files")
    assert [workflow["summary"][name] for name in counts] == [messages["summary"][name] for name in counts]
    documents = dict.fromkeys((file["file"] for file in files), 1)
    pages = {
        f"{file['file']}#page={number}": 1
        for file in files
        if file["result"]
        for number in range(1, 2 + file["result"]["text"].count("\f"))
    }
    assert len(pages) == 15
    assert messages["summary"]["tool_runs"] == documents
    assert workflow["summary"]["tool_runs"] == documents | pages


def test_its_steps_are_shown_as_they_go_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    ran = demo(*BY_WORKFLOW, str(SAMPLES / "invoice.pdf"), TMPDIR=str(tmp_path / "temporary"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [
        line.removeprefix("  invoice.pdf: ") for line in ran.stdout.splitlines() if line.startswith("  invoice.pdf:")
    ]
    assert lines[:3] == ["started", "extract", "extract: pages: 3"]
    assert {"analyse 1", "analyse 2", "analyse 3"} < set(lines)
    assert lines[-3:] == ["merge", "store", "COMPLETED"]
    assert "1 of 1 files completed" in ran.stdout
    assert ran.stderr == ""
    assert list((tmp_path / "temporary").iterdir()) == []


def test_odd_names_and_files_that_fail(tmp_path: Path) -> None:
    names = ["amp&amp;er#1.txt", "two\nlines.txt", ":smile: [red]x.txt", f"{'n' * 246}.txt"]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f"This is the document with number {number}.\fAnd its second page.")
    (tmp_path / "empty.txt").touch()
    paths = [str(tmp_path / name) for name in (*names, "empty.txt")]
    found = report(tmp_path / "report.json", *BY_WORKFLOW, *paths, code=3)
    *good, empty = found["files"]
    assert [file["file"] for file in good] == names
    for number, file in enumerate(good):
        assert (file["status"], file["result"]["pages"]) == ("COMPLETED", 2)
        assert file["result"]["text"].startswith(f"This is the document with number {number}.\f")
    assert (empty["status"], empty["error"]) == ("ERROR", "the file is empty (0 bytes). Send it again.")
    marks = ("", "#page=1", "#page=2")
    assert found["summary"]["tool_runs"] == {"empty.txt": 1} | {f"{name}{mark}": 1 for name in names for mark in marks}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "local"), "--engine goes only with --workflow"),
        (("--workflow", "--batches", "2"), "--batches does not go with --workflow"),
    ],
)
def test_what_only_the_other_way_knows_is_refused(arguments: tuple[str, ...], said: str) -> None:
    ran = demo(*arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
