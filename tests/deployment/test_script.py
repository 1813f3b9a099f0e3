"""scripts/deploy.sh without an engine: what it says of itself, and what it refuses before it touches anything."""

import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.workers import GRACE_SECONDS, PROFILES, WORKERS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "deploy.sh"
PARTS = sorted((ROOT / "scripts" / "deploy").glob("*.sh"))
Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A checkout of its own, in which nothing is deployed."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "docker").mkdir()
    for name in ("sample.env", "docker-compose.workers.yml"):
        shutil.copy(ROOT / "docker" / name, tmp_path / "docker" / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def deploy(root: Path, *options: str, cwd: Path | None = None, **variables: str) -> Ran:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", **variables}
    argv = [str(root / "scripts" / "deploy.sh"), *options]
    return subprocess.run(
        argv, cwd=cwd or root, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for argv in (["-x", str(SCRIPT)], list(map(str, PARTS))):
        ran = subprocess.run([shellcheck, *argv], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (0, "")


def test_the_help_is_its_own_comments_from_any_folder(tmp_path: Path) -> None:
    ran = deploy(ROOT, "--help", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    comments = re.findall(r"^# ?(.*)$", SCRIPT.read_text().partition("\nset -euo")[0].partition("\n")[2], re.M)
    assert ran.stdout.splitlines() == comments
    actions = re.findall(r"one_of --action .*\$action. (.*)$", SCRIPT.read_text(), re.M)[0].split()
    assert actions == re.findall(r"^  ([a-z]+) {2,}", ran.stdout, re.M)[: len(actions)]
    assert len(actions) == 10


def test_what_it_knows_of_the_registry_is_right() -> None:
    common, configuration = (
        (ROOT / "scripts" / "deploy" / f"{name}.sh").read_text() for name in ("common", "configuration")
    )
    assert re.findall(r"^GRACE_SECONDS=(\d+)$", configuration, re.M) == [str(GRACE_SECONDS)]
    order = re.findall(r"^ORDER=\((.*)\)$", common, re.M)[0].replace("-", "_").split()
    assert set(WORKERS) | {"beat", "monitor"} <= set(order) <= {*PROFILES, "beat", "monitor"}


DEVELOPMENT = ("--environment", "development")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--environment must be one of development staging production"),
        (("--environment", "prod", "--action", "deploy"), "it is 'prod'"),
        ((*DEVELOPMENT, "--action", "explode"), "--action must be one of"),
        ((*DEVELOPMENT, "--action"), "--action needs a value"),
        ((*DEVELOPMENT, "--action", "deploy", "--target", "moon"), "--target must be one of compose kubernetes"),
        ((*DEVELOPMENT, "--action", "deploy", "--workers", "file,fiel"), "--workers has no 'fiel'"),
        ((*DEVELOPMENT, "--action", "deploy", "--workers", ""), "--workers names nobody"),
        ((*DEVELOPMENT, "--action", "scale"), "--action scale needs --replicas"),
        ((*DEVELOPMENT, "--action", "scale", "--replicas", "many"), "--action scale needs --replicas, a whole number"),
        ((*DEVELOPMENT, "--action", "deploy", "--replicas", "3"), "--replicas is for --action scale"),
        ((*DEVELOPMENT, "--action", "update"), "--action update needs --tag"),
        ((*DEVELOPMENT, "--action", "update", "--tag", "a b"), "--tag must be the tag of an image"),
        ((*DEVELOPMENT, "--frobnicate"), "there is no option --frobnicate"),
    ],
)
def test_what_is_wrong_on_its_command_line_is_said(copied: Path, options: tuple[str, ...], said: str) -> None:
    ran = deploy(copied, *options)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert not (copied / ".deployments").exists()


def commands() -> list[str]:
    """Every line that calls it in what is read by people."""
    pages = ((ROOT / name).read_text() for name in ("README.md", "OPERATIONS.md"))
    blocks = [block for page in pages for block in re.findall(r"```sh\n(.*?)```", page, re.S)]
    lines = (line.partition(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return sorted({line for line in lines if line.startswith("scripts/deploy.sh ")})


@pytest.mark.parametrize("command", commands())
def test_a_command_that_is_shown_is_one_that_it_takes(copied: Path, command: str) -> None:
    """It gets as far as what is not there in an empty checkout, and is not wrong (2)."""
    if "--action images" in command or (DEVELOPMENT[1] in command and "--action deploy" in command):
        command += " --dry-run"
    ran = deploy(copied, *command.split()[1:])
    assert ran.returncode in {0, 1}, ran.stderr


def test_production_asks_and_takes_silence_for_no(copied: Path) -> None:
    ran = deploy(copied, "--environment", "production", "--action", "stop")
    assert ran.returncode == 1
    assert "production asks before --action stop, and nobody is there to answer: say --yes" in ran.stderr


def test_two_runs_at_once_are_refused(copied: Path) -> None:
    records = copied / ".deployments" / "staging-compose"
    records.mkdir(parents=True)
    with (records / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = deploy(copied, "--environment", "staging", "--action", "stop")
    assert ran.returncode == 1
    assert "another run is at work on staging (compose)" in ran.stderr


def test_an_environment_that_is_not_described_is_refused(copied: Path) -> None:
    ran = deploy(copied, "--environment", "staging", "--action", "deploy")
    assert ran.returncode == 1
    assert "there is no docker/staging.env: copy docker/sample.env to it, and fill it in" in ran.stderr


def test_all_that_is_wrong_with_an_environment_is_said_at_once(copied: Path) -> None:
    text = (copied / "docker" / "sample.env").read_text()
    closed = copied / "docker" / "key"
    closed.write_text("secret")
    closed.chmod(0o600)
    (copied / "docker" / "folder").mkdir()
    text = text.replace("\nCELERY_BROKER_URL_FILE=", "\nCELERY_BROKER_URL_FILE=/nowhere/broker", 1)
    text = text.replace("\nINTERNAL_SERVICE_API_KEY_FILE=", "\nINTERNAL_SERVICE_API_KEY_FILE=./key", 1)
    text = text.replace("\n#WEBHOOK_SIGNING_KEY_FILE=", "\nWEBHOOK_SIGNING_KEY_FILE=./folder")
    text = text.replace("\n#TAG=latest", '\nTAG="1.0"').replace("\n#ALL_REPLICAS=1", "\nALL_REPLICAS=-1\nexport A=B")
    text = text.replace("\n#DRAIN_SECONDS=10", "\nDRAIN_SECONDS=ten").replace("\n#TAKEOVER=no", "\nTAKEOVER=maybe")
    (copied / "docker" / "staging.env").write_text(text)
    ran = deploy(copied, "--environment", "staging", "--action", "deploy")
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "deploy.sh: docker/staging.env is not right:",
        f"  line {text.splitlines().index('export A=B') + 1} is neither NAME=VALUE nor a comment",
        "  TAG: write its value without quotes, and no comment behind it",
        "  ALL_REPLICAS must be a whole number",
        "  CACHE_REDIS_PASSWORD_FILE is empty",
        "  CACHE_REDIS_HOST is empty",
        "  INTERNAL_API_BASE_URL is empty",
        "  CELERY_BROKER_URL_FILE names /nowhere/broker, which is not there",
        f"  INTERNAL_SERVICE_API_KEY_FILE names {copied}/docker/./key, which user 10001, the containers', may not read",
        f"  WEBHOOK_SIGNING_KEY_FILE names {copied}/docker/./folder, which is a folder",
        "  DRAIN_SECONDS must be 5 below the grace of a container, 30, or it is killed at its work",
        "  TAKEOVER must be verify, share, all or no",
    ]


def test_nothing_is_done_where_nothing_is_deployed(copied: Path) -> None:
    """Before an engine is asked for anything that is not there."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        ran = deploy(copied, *DEVELOPMENT, "--action", "update", "--tag", "1")
        assert "docker" in ran.stderr
    else:
        ran = deploy(copied, *DEVELOPMENT, "--action", "update", "--tag", "1")
        assert "nothing is deployed to development (compose); begin with --action deploy" in ran.stderr
    assert ran.returncode == 1
