"""The demo, as a newcomer runs it: real documents, real processes, and nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox.extraction.tool import extract
from sandbox.stack import wait_for

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SAMPLES = ROOT / "sandbox" / "samples"
pytestmark = pytest.mark.timeout(300)

# What a reader of the sample finds in it, so that a result is known to be its document's.
PHRASES = {
    "invoice.pdf": "Invoice",
    "maintenance-contract.docx": "Contract",
    "ledger.xlsx": "6200 Energy",
    "price-list-cp1252.csv": "ü",
    "safety-data-sheet.html": "Safety",
    "restore-runbook.md": "Restore",
    "gateway.log": "gateway",
    "letter.txt": "Dear",
}


def demo(*arguments: str, command: tuple[str, ...] = (), **variables: str) -> "subprocess.CompletedProcess[str]":
    start = [*(command or (str(BIN / "workers"), "demo")), *arguments]
    environment = os.environ | variables
    return subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)


def as_it_should_be(report: dict[str, Any]) -> None:
    """Every good sample COMPLETED with its own text, the damaged one ERROR with its reason."""
    files = {row["file"]: row for row in report["files"]}
    assert set(files) == {path.name for path in SAMPLES.iterdir() if path.is_file()}
    damaged = files.pop("damaged.pdf")
    assert (damaged["status"], damaged["result"]) == ("ERROR", None)
    assert "damaged" in damaged["error"]
    assert len(files) >= 10
    assert len({Path(name).suffix for name in files}) == 8
    for name, row in files.items():
        assert (row["status"], row["error"]) == ("COMPLETED", None), name
        assert set(row["result"]) == {"text", "mime_type", "pages", "words", "characters", "metadata"}
        assert len(row["result"]["text"]) == row["result"]["characters"] > 100
        assert row["result"] == extract(SAMPLES / name), name
    for name, phrase in PHRASES.items():
        assert phrase.lower() in files[name]["result"]["text"].lower(), name
    summary = report["summary"]
    assert (summary["total_files"], summary["successful_files"], summary["failed_files"]) == (
        len(files) + 1,
        len(files),
        1,
    )
    assert summary["http_requests"] <= 8 + 3 * (len(files) + 1)


def test_the_readmes_first_command() -> None:
    uv = shutil.which("uv")
    ran = demo(command=(uv, "run", "workers", "demo") if uv else ())
    assert ran.returncode == 0, ran.stderr
    for path in SAMPLES.iterdir():
        if path.is_file():
            assert path.name in ran.stdout
    assert "12 of 13 files completed" in ran.stdout


@pytest.mark.parametrize("workers", ["four", "all"])
def test_the_samples_end_as_they_should(workers: str, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    ran = demo("--workers", workers, "--output", str(output))
    assert ran.returncode == 0, ran.stderr
    as_it_should_be(json.loads(output.read_text()))


def test_rabbitmq_and_postgresql_the_same(rabbitmq_url: str, postgresql_url: str, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    ran = demo("--broker", rabbitmq_url, "--database-url", postgresql_url, "--output", str(output))
    assert ran.returncode == 0, ran.stderr
    as_it_should_be(json.loads(output.read_text()))


def test_odd_names_of_files_and_folders(tmp_path: Path) -> None:
    names = ['quo"te.txt', "amp&amp;er.txt", "back\\slash.txt", "two\nlines.txt", ":smile: [red]x.txt", "ä ö.TXT"]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f"This is the document with number {number}.")
    output, temporary = tmp_path / "report.json", tmp_path / "my tmp#1"
    temporary.mkdir()
    paths = [str(tmp_path / name) for name in names]
    ran = demo(*paths, "--workers", "all", "--output", str(output), TMPDIR=str(temporary))
    assert ran.returncode == 0, ran.stderr
    files = json.loads(output.read_text())["files"]
    assert [row["file"] for row in files] == names
    for number, row in enumerate(files):
        assert row["result"]["text"] == f"This is the document with number {number}."
    assert ":smile: [red]x.txt" in ran.stdout
    assert list(temporary.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {*names, "report.json", "my tmp#1"}


def test_files_that_fail_are_told_by_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "note.txt").write_text("Files of one name from two folders both go through.")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("This is the other one, and its text is its own.")
    output = tmp_path / "report.json"
    paths = [str(tmp_path / name) for name in ("empty.txt", "note.txt", "other/note.txt")]
    ran = demo(*paths, "--batches", "1", "--output", str(output))
    assert ran.returncode == 3, ran.stderr
    files = {row["file"]: row for row in json.loads(output.read_text())["files"]}
    assert files["empty.txt"]["status"] == "ERROR"
    assert files["note.txt"]["result"]["text"].startswith("Files of one name")
    assert files["note-2.txt"]["result"]["text"].startswith("This is the other one")


def stays_until_killed(command: list[str], folder: Path) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """A demo that keeps running, with temporary files in that folder; and every process of it."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert any("Still running" in line for line in process.stdout)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 7  # the keeper, broker, backend and four workers
    assert list(folder.iterdir())
    return process, family


def nothing_is_left(family: list[psutil.Process], folder: Path) -> None:
    def ended(process: psutil.Process) -> bool:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    wait_for(lambda: all(ended(process) for process in family), 20, "the end of every process")
    wait_for(lambda: list(folder.iterdir()) == [], 10, "the folder to be empty")


@pytest.mark.parametrize(
    "how", [signal.SIGINT, *(pytest.param(one, marks=pytest.mark.matrix) for one in (signal.SIGTERM, signal.SIGKILL))]
)
def test_however_it_ends_nothing_is_left(how: signal.Signals, tmp_path: Path) -> None:
    process, family = stays_until_killed([str(BIN / "workers"), "demo", "--keep"], tmp_path)
    with process:
        os.kill(process.pid, how)
    nothing_is_left(family, tmp_path)


def test_a_killed_launcher_takes_the_demo_with_it(tmp_path: Path) -> None:
    script = f"{BIN / 'workers'} demo --keep & wait"
    launcher, family = stays_until_killed(["/bin/sh", "-c", script], tmp_path)
    with launcher:
        launcher.kill()
    nothing_is_left(family, tmp_path)
