"""`workers workflow`, as a user types it."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from sandbox.stack import Stack, wait_for
from tests.acceptance.test_command_line import BIN, ROOT

INPUT = json.dumps({"pages": ["eins", "smudged", "für"], "classify": True})
RESULT = {"report": {"text": "EINS SMUDGED FÜR", "class": "invoice"}}
MODULE = "tests.workflows_for_tests"
COMMAND = [str(BIN / "workers"), "workflow"]


def environment(**variables: str) -> dict[str, str]:
    ours = {"WORKFLOW_MODULES": MODULE, "TASK_QUEUE_BACKEND": "local", "PYTHONPATH": str(ROOT)}
    return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(ROOT), "LANG": "C.UTF-8", **ours, **variables}


def typed(command: list[str], given: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=environment(**variables),
        input=given,
        encoding="utf-8",
        capture_output=True,
        check=False,
        timeout=60,
    )


def workflow(*arguments: str, given: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    ran = typed([*COMMAND, *arguments], given, **variables)
    assert "Traceback" not in ran.stderr
    return ran


Elsewhere = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def workers() -> Iterator[Stack]:
    """A worker that takes steps, on a broker of its own."""
    with Stack() as stack:
        stack.start_redis()
        stack.start_workers("general", WORKFLOW_MODULES=MODULE, OTEL_TRACES_EXPORTER="console", PYTHONPATH=str(ROOT))
        stack.wait_until_ready()
        yield stack


@pytest.fixture
def elsewhere(workers: Stack) -> Elsewhere:
    """The command beside a run that the workers have: RUN is its id, ENDED behind all else has it end before."""
    fleet = workers.environment(TASK_QUEUE_BACKEND="celery")

    def command(name: str, given: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        run_id = workflow("run", name, "--no-wait", "--input", "-", given=given, **fleet).stdout.strip()
        if arguments[-1] == "ENDED":
            workflow("status", run_id, "--watch", **fleet)
        argv = [run_id if argument == "RUN" else argument for argument in arguments if argument != "ENDED"]
        return workflow(*argv, **fleet)

    return command


def without_times(text: str) -> list[str]:
    return [re.sub(r"^ +\d+\.\d s  ", "", line) for line in text.splitlines()]


def test_the_command_line_knows_it() -> None:
    assert "workflow" in typed([str(BIN / "workers"), "--help"]).stdout
    ran = workflow("--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    for command in ("list", "graph", "run", "status", "cancel"):
        assert re.search(rf"^  {command} ", ran.stdout, re.MULTILINE)


def test_workflows_are_listed() -> None:
    ran = workflow("list")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[:3] == [
        "NAME                 STEPS  TIME LIMIT",
        "document-processing  4      5 min       Reads the pages of a document.",
        "failing              2      240 min     Fails at its second attempt for good.",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_graph_is_drawn_as_the_terminal_can(encoding: str) -> None:
    ran = workflow("graph", "document-processing", PYTHONIOENCODING=encoding)
    assert (ran.returncode, ran.stderr) == (0, "")
    drawn = [
        "●   fetch      at most 1 min",
        "├─● read-page  × pages, at most 30 s, 1 retry",  # noqa: RUF001 # the sign of multiplication
        "● │ classify   on a condition, at most 10 min",
        "◆─╯ report     at most 10 min",
    ]
    plain = [line.translate(str.maketrans("●├─│◆╯\N{MULTIPLICATION SIGN}", "*+-|o'x")) for line in drawn]
    assert ran.stdout.splitlines() == (drawn if encoding == "utf-8" else plain)


def test_a_graph_is_mermaid_in_utf_8_wherever_it_is_made() -> None:
    ran = workflow("graph", "document-processing", "--mermaid", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("flowchart TD\n")
    assert "\N{MULTIPLICATION SIGN} pages" in ran.stdout
    assert "s0 --> s1" in ran.stdout


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_run_gives_its_result_and_nothing_else(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(INPUT, encoding="utf-8")
    ran = workflow("run", "document-processing", "--input", str(tmp_path / "input.json"), PYTHONIOENCODING=encoding)
    assert ran.returncode == 0
    assert json.loads(ran.stdout) == RESULT
    assert ("FÜR" in ran.stdout) == (encoding == "utf-8")
    assert re.fullmatch(r"run [0-9a-f]{32}\n", ran.stderr)
    assert (
        workflow("run", "document-processing", "--input", "-", given=INPUT).stdout == ran.stdout or encoding == "ascii"
    )


def test_a_failure_is_told_with_its_step_attempt_and_reason() -> None:
    ran = workflow("run", "failing")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[1:] == ["workers: step breaks failed at attempt 2: ValueError: broken 2"]


def test_what_happens_is_told_line_by_line_where_it_is_no_terminal() -> None:
    ran = workflow("run", "document-processing", "--input", "-", "--watch", given=INPUT)
    assert ran.returncode == 0
    assert json.loads(ran.stdout) == RESULT
    told = without_times(ran.stderr)
    assert told[-1] == "run  succeeded"
    assert "report  progress  1/2 half of it" in told
    assert "classify  succeeded  attempt 1" in told
    smudged = [line for line in told if line.startswith("read-page[1]  ")]
    assert [re.sub(r", \d/3 ended", "", line) for line in smudged] == [
        "read-page[1]  running  attempt 1",
        "read-page[1]  retrying  attempt 1, ValueError: the page is smudged",
        "read-page[1]  running  attempt 2",
        "read-page[1]  succeeded  attempt 2",
    ]
    ended = [line for line in told if re.match(r"read-page\[\d\]  succeeded", line)]
    assert [line.rpartition(", ")[2] for line in ended] == ["1/3 ended", "2/3 ended", "3/3 ended"]


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (["run", "document-procesing"], "", "there is no workflow 'document-procesing' here; did you mean 'document-"),
        (["graph", "document-procesing"], "", "did you mean 'document-processing'?"),
        (
            ["run", "failing", "--input", "absent.json"],
            "",
            "--input must name a file that holds JSON: [Errno 2] No such",
        ),
        (["run", "failing", "--input", "/"], "", "--input must name a file that holds JSON: [Errno 21] Is a dir"),
        (["run", "failing", "--input", "-"], "{", "--input must name a file that holds JSON: Expecting property name"),
        (
            ["run", "failing", "--input", "-"],
            "[" * 100_000,
            "--input must name a file that holds JSON: maximum recursion",
        ),
        (["run", "failing", "--input", "-"], "NaN", "the input of failing is nan, a number that JSON does not have"),
        (["run", "document-processing"], "", "the input of document-processing, which step fetch takes, is not dict"),
        (
            ["run", "failing", "--input", "-", "--timeout", "60"],
            "",
            "--input must name a file that holds JSON: Expecting",
        ),
        (["status", "x"], "", "whose runs are known to their own process alone"),
        (["cancel", "x"], "", "whose runs are known to their own process alone"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(arguments: list[str], given: str, said: str) -> None:
    ran = workflow(*arguments, given=given)
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("workers: ")
    assert said in line


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORKFLOW_MODULES": ""}, "WORKFLOW_MODULES is not set: name the modules that declare workflows"),
        (
            {"WORKFLOW_MODULES": "absent_one"},
            "No module named 'absent_one'; install it, or have PYTHONPATH name the folder",
        ),
        ({"WORKFLOW_MODULES": "a b"}, "WORKFLOW_MODULES must be names of Python modules with commas between them"),
        ({"WORKFLOW_MODULES": "tests.fakes"}, "tests.fakes, which has no class under @workflow"),
    ],
)
def test_mistakes_of_the_settings_are_told(variables: dict[str, str], said: str) -> None:
    ran = workflow("list", **variables)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("workers: ")
    assert said in ran.stderr


def test_an_engine_that_is_none_is_told() -> None:
    ran = workflow("run", "failing", TASK_QUEUE_BACKEND="cellery", WORKFLOW_OUTPUT_MAX_BYTES="none")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "TASK_QUEUE_BACKEND must be one of local, celery, hatchet; 'cellery' is not" in ran.stderr
    assert "WORKFLOW_OUTPUT_MAX_BYTES must be a whole number" in ran.stderr


def test_all_mistakes_of_all_modules_are_told(tmp_path: Path) -> None:
    head = "from shared.workflows.declaration import BaseWorkflow, task, workflow\n"
    (tmp_path / "one.py").write_text(
        f"{head}@workflow(name='a b')\nclass One(BaseWorkflow):\n"
        "    @task(parents=['absent'])\n    def step(self, input_data, ctx): ...\n"
    )
    (tmp_path / "two.py").write_text("raise KeyError('gone')\n")
    (tmp_path / "three.py").write_text("x = (\n")
    ran = workflow("run", "x", WORKFLOW_MODULES="one,two,three", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (ran.returncode, ran.stdout) == (1, "")
    for said in (
        "- the name 'a b' must be letters",
        "- step 'step' has parent 'absent', and there is no such step",
        f"two, which cannot be imported: KeyError: 'gone' ({tmp_path}/two.py, line 1)",
        "three, which cannot be imported: '(' was never closed (three.py, line 1)",
    ):
        assert said in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "failing", "--no-wait"],
        ["run", "failing", "--timeout", "0"],
        ["run"],
        ["nothing"],
        ["status"],
    ],
)
def test_wrong_calls_end_with_2(arguments: list[str]) -> None:
    ran = workflow(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: workers workflow")


def waiting(folder: Path) -> str:
    return json.dumps({"begun": str(folder / "begun"), "until": str(folder / "until")})


def test_a_local_run_ends_with_the_patience_of_who_waits(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = workflow("run", "waiting", "--input", "-", "--timeout", "0.5", given=waiting(tmp_path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.search(r"workers: run \w+ is not waited for any more; it was cancelled, for a local run ends", ran.stderr)
    assert time.monotonic() - began < 15


@contextmanager
def started(command: list[str], **variables: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        command, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("watch", [[], ["--watch"]])
def test_ctrl_c_cancels_a_local_run(watch: list[str], tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(waiting(tmp_path))
    with started([*COMMAND, "run", "waiting", "--input", str(tmp_path / "input.json"), *watch]) as process:
        wait_for((tmp_path / "begun").exists, 30, "the step")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert re.search(r"workers: run \w+ is not waited for any more; it was cancelled", err)


def test_ctrl_c_leaves_another_run_alone_and_says_how_to_follow_it(workers: Stack, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(waiting(tmp_path))
    command = [*COMMAND, "run", "waiting", "--input", str(tmp_path / "input.json")]
    with started(command, **workers.environment(TASK_QUEUE_BACKEND="celery")) as process:
        wait_for((tmp_path / "begun").exists, 30, "the step")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    run_id = err.splitlines()[0].removeprefix("run ")
    follow, end = f"workers workflow status {run_id} --watch", f"workers workflow cancel {run_id}"
    assert err.splitlines()[1:] == [
        f"workers: run {run_id} is not waited for any more; it goes on; follow it: {follow}; end it: {end}"
    ]


def test_a_run_elsewhere_is_started_and_left(elsewhere: Elsewhere, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(waiting(tmp_path))
    command = ["run", "waiting", "--no-wait", "--input", str(tmp_path / "input.json")]
    ran = elsewhere("failing", "null", *command, "--run-key", "once", "--organization", "org_1")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"[0-9a-f]{32}\n", ran.stdout)
    assert elsewhere("failing", "null", *command, "--watch").returncode == 2


def test_the_status_of_a_run_says_what_became_of_each_step(elsewhere: Elsewhere) -> None:
    ran = elsewhere("failing", "null", "status", "RUN", "ENDED")
    assert (ran.returncode, ran.stderr) == (1, "")
    lines = ran.stdout.splitlines()
    assert re.fullmatch(r"run \w{32} of failing  failed  \d+\.\d s", lines[0].rstrip())
    assert [re.sub(r" +", " ", re.sub(r"\d\.\d", "0.1", line)) for line in lines[1:]] == [
        "STEP STATE ATTEMPTS ITEMS SECONDS",
        "● breaks failed 2 - 0.1 ValueError: broken 2",
        "◆ never not_run 0 - -",
        "! on_failure succeeded 1 - 0.1",
    ]
    ran = elsewhere("document-processing", INPUT, "status", "RUN", "ENDED")
    assert ran.returncode == 0
    assert re.search(r"├─● read-page +succeeded +4 +3/3 +\d", ran.stdout)
    assert re.search(r"◆─╯ report .* 1/2 half of it", ran.stdout)


def test_the_status_of_a_run_is_json(elsewhere: Elsewhere) -> None:
    ran = elsewhere("failing", "null", "status", "RUN", "--json", "--watch")
    assert (ran.returncode, ran.stderr) == (1, "")
    found = json.loads(ran.stdout)
    assert found["status"] == "failed"
    assert found["steps"]["breaks"]["attempt"] == 2


def test_a_run_is_watched_until_it_ends(elsewhere: Elsewhere) -> None:
    ran = elsewhere("failing", "null", "status", "RUN", "--watch")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert without_times(ran.stdout)[0] == "run  running"
    assert without_times(ran.stdout)[-1] == "run  failed"


def test_who_cancels_is_told_whether_it_was_that(elsewhere: Elsewhere, tmp_path: Path) -> None:
    ran = elsewhere("waiting", waiting(tmp_path), "cancel", "RUN")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"run \w{32} was cancelled\n", ran.stdout)
    ran = elsewhere("failing", "null", "cancel", "RUN", "ENDED")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"run \w{32} had ended before; nothing was cancelled\n", ran.stdout)


def test_a_run_that_is_none_is_told(elsewhere: Elsewhere) -> None:
    ran = elsewhere("failing", "null", "status", "0")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("workers: there is no run 0")


def test_a_run_is_seen_as_any_task_is(elsewhere: Elsewhere, workers: Stack) -> None:
    """Metrics, lines and spans: which run, workflow and step."""
    ran = elsewhere("document-processing", INPUT, "status", "RUN", "ENDED")
    run_id = ran.stdout.split()[1]
    with urlopen(f"http://127.0.0.1:{workers.health_ports['general']}/metrics") as answer:  # our own
        metrics = answer.read().decode()
    lines = [line for line in metrics.splitlines() if "document-processing" in line or "workflow_step" in line]
    for words in (
        ("workers_workflow_runs_total", "succeeded"),
        ("workers_workflow_steps_total", '"read-page"', '"retrying"'),
        ("workers_workflow_run_duration_seconds_count", '"succeeded"'),
        ("workers_workflow_step_duration_seconds_count", '"fetch"'),
        ("celery_task_succeeded_total", '"workers.workflow_step"', '"workers_workflow_default"'),
    ):
        [found] = [line for line in lines if all(word in line for word in words)]
        assert float(found.split()[-1]) >= 1, words
    log = workers.parts["general"].log.read_text()
    told = [json.loads(line) for line in log.splitlines() if line.startswith('{"') and run_id in line]
    ended = [line for line in told if line.get("event") == "task_ended"]
    assert {line["workflow"] for line in ended} == {"document-processing"}
    assert {line["step"] for line in ended} == {"fetch", "read-page", "classify", "report"}
    assert {line["item"] for line in ended if line["step"] == "read-page"} == {0, 1, 2}
    assert {line["request_id"] for line in ended} == {ended[0]["request_id"]}
    wait_for(lambda: f'"run_id": "{run_id}"' in workers.parts["general"].log.read_text(), 15, "the spans")
    spans = workers.parts["general"].log.read_text()
    about = re.findall(rf'"run_id": "{run_id}",\s+"workflow": "([^"]+)",\s+"step": "([^"]+)"', spans)
    assert {("document-processing", "report"), ("document-processing", "fetch")} <= set(about)


def on_a_terminal(command: list[str]) -> tuple[int, str]:
    """What it writes where its standard error is a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, env=environment(TERM="xterm", COLUMNS="120"), stdout=subprocess.PIPE, stderr=theirs, stdin=theirs
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while piece := os.read(ours, 65_536):
                written += piece
        except OSError:  # Linux says so that nobody has the other end any more
            pass
        code = process.wait(timeout=30)
    os.close(ours)
    return code, written.decode()


def test_on_a_terminal_a_picture_is_drawn_again_and_again() -> None:
    code, written = on_a_terminal([*COMMAND, "run", "failing", "--watch"])
    assert code == 1
    assert "\x1b[" in written
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.rpartition(" of failing")[2])
    assert "● breaks" in last
    assert "broken 2" in last
    assert "workers: step breaks failed at attempt 2" in last
    assert "Traceback" not in written


def test_everything_that_failed_is_told(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "from shared.workflows.declaration import BaseWorkflow, task, workflow\n"
        "def broken(self, input_data, ctx):\n    raise ValueError(f'{ctx.step.name} broke')\n"
        "@workflow(name='two')\nclass Two(BaseWorkflow):\n"
        "    left, right = (task(name=name)(lambda self, given, ctx: broken(self, given, ctx)) for name in 'ab')\n"
    )
    ran = workflow("run", "two", WORKFLOW_MODULES="two", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[1:] == [
        "workers: step a failed at attempt 1: ValueError: a broke",
        "workers: step b failed at attempt 1: ValueError: b broke",
    ]


def test_what_the_readme_shows_is_drawn() -> None:
    ran = workflow("graph", "document-processing", WORKFLOW_MODULES="sandbox.workflows.document_processing")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split()[1] for line in ran.stdout.splitlines()[:4]] == ["extract", "analyse", "merge", "store"]
