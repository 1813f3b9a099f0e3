"""`scripts/deploy.sh` on a real Docker Engine: each test goes on from what the one before left running.

uv run pytest tests/acceptance/deploy -m docker
"""

import os
import pty
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from config.workers import PROFILES
from sandbox.driver import Run
from sandbox.extraction.document import SUPPORTED
from sandbox.stack import StackError, wait_for
from tests.acceptance.deploy.checkout import OURS, Checkout, finished
from tests.acceptance.deploy.conftest import Fleet
from tests.acceptance.deploy.engine import docker
from tests.acceptance.deploy.load import Load
from tests.acceptance.deploy.servers import BASE
from tests.acceptance.test_executions import counts, finish

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

SAMPLES = Path(__file__).resolve().parents[3] / "sandbox" / "samples"
DAMAGED = "damaged.pdf"
# How a worker's image is broken: what it does instead of running. What it is asked before that, it answers.
BROKEN = {"dies": "exit 1", "hangs": "exec sleep 600"}
ENTRYPOINT = """\
FROM {image}
ENTRYPOINT ["sh", "-c", "[ \\"$1\\" != run ] || {does}; exec workers \\"$@\\"", "workers"]
CMD ["run", "file_processing"]
"""


def health(container: str) -> str:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip()


def everything_runs(checkout: Checkout, tag: str) -> None:
    """One container of each, all of that tag; the engine asks for their health every ten seconds."""
    containers = [(name, one) for name in OURS for one in checkout.project.containers(name)]
    assert [name for name, _ in containers] == list(OURS)
    assert {name: tags for name, tags in checkout.project.tags(*OURS).items() if tags != {tag}} == {}
    ids = [one["Id"] for _, one in containers]
    wait_for(lambda: {health(one) for one in ids} == {"healthy"}, 30, "all to be healthy")


@pytest.fixture
def load(fleet: Fleet) -> Iterator[Load]:
    """Two files in as many batches, half a second each, again and again."""
    fleet.driver.control("PUT", "switches", {"tool_seconds": 0.5})
    yield Load(fleet.driver, fleet.deployment, fleet.documents)
    fleet.driver.control("PUT", "switches", {"reset": True})


@pytest.mark.usefixtures("checkout")
def test_a_build_that_is_repeated_elsewhere_has_the_same_layers(tmp_path: Path) -> None:
    layers = []
    for folder in (tmp_path / "one", tmp_path / "another"):
        built = Checkout(folder)
        file = str(built.folder / "docker" / "beat.Dockerfile")
        argv = ("--quiet", "--no-cache", "--network", "host", "--build-arg", f"BASE_IMAGE={BASE}", "--file", file)
        image = docker("build", *argv, str(built.folder)).strip()
        layers.append(docker("image", "inspect", "--format", "{{.RootFS.Layers}}", image))
        docker("image", "rm", "--force", image)
    assert layers[0] == layers[1]


def test_a_first_deployment_is_ready_and_takes_real_documents(fleet: Fleet) -> None:
    assert {name for name in PROFILES["all"].queues if fleet.consumers.get(name) != 1} == set()
    everything_runs(fleet.checkout, "t1")
    samples = {path.name: path for path in SAMPLES.iterdir() if path.suffix.lower() in SUPPORTED}
    run = finish(fleet.driver, fleet.driver.post(fleet.deployment, samples))
    assert counts(run) == ("COMPLETED", len(samples), len(samples) - 1, 1)
    assert {name for name, row in run.files.items() if row["status"] != "COMPLETED"} == {DAMAGED}
    results = fleet.driver.results(fleet.deployment, run)
    texts = {name: results[name]["result"]["text"] for name in samples if name != DAMAGED}
    assert texts["letter.txt"].split() == samples["letter.txt"].read_text().split()
    assert {name for name, text in texts.items() if len(text) < 100} == set()


def test_it_says_what_is_deployed_and_no_secret(fleet: Fleet) -> None:
    status = fleet.checkout.run("status")
    assert all(re.search(rf"^{name} .*:t1-[\w-]+ .*\(healthy\)$", status, re.MULTILINE) for name in OURS), status
    configuration = fleet.checkout.run("config")
    assert all(f"\n  {name}:\n" in configuration for name in OURS)
    with fleet.checkout.start("logs", "--workers", "file,callback") as logs:
        said = ""
        while said.count('"worker_ready"') < 2:
            assert logs.stdout is not None
            line = logs.stdout.readline()
            assert line, f"it ended: {said}"
            said += line
        logs.terminate()
    assert "general-1" not in said
    secrets = [path.read_text().strip() for path in (fleet.checkout.folder / "docker/secrets/development").iterdir()]
    assert len(secrets) > 5
    assert not [secret for secret in secrets if secret in status + configuration + said + fleet.said]


def test_three_replicas_run_and_each_of_them_works(fleet: Fleet, load: Load) -> None:
    fleet.checkout.run("scale", "--workers", "file", "--replicas", "3")
    ids = fleet.checkout.project.running("file-processing")
    assert len(ids) == 3
    assert fleet.checkout.project.consumers()["api_file_processing"] == 3

    def idle() -> list[str]:
        return [one for one in ids if '"process_file_batch"' not in ended(docker("logs", one))]

    with load:
        wait_for(lambda: idle() == [], 60, "every replica to have ended a batch")
    load.all_complete()


def ended(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if '"task_ended"' in line and '"succeeded"' in line)


def test_prometheus_finds_each_container(fleet: Fleet) -> None:
    checkout = fleet.checkout
    files = {"docker/monitoring/prometheus.yml": "prometheus.yml", "monitoring/alerts.yml": "alerts.yml"}
    mounts = [f"--volume={checkout.folder / path}:/etc/prometheus/{name}:ro" for path, name in files.items()]
    network, label = f"--network={checkout.name}_default", f"--label=com.docker.compose.project={checkout.name}"
    prometheus = docker("run", "--detach", "--rm", network, label, *mounts, "prom/prometheus:v3.5.0").strip()

    def read() -> dict[str, int]:
        asked = ("promtool", "query", "instant", "http://127.0.0.1:9090", "count by (service) (up == 1)")
        said = docker("exec", prometheus, *asked, check=False)
        return {name: int(count) for name, count in re.findall(r'service="(.+)"} => (\d+) ', said)}

    expected = {"api-deployment": 1, "general": 1, "file-processing": 3, "callback": 1, "monitor": 1}
    with suppress(StackError):
        wait_for(lambda: read() == expected, 60, "every container to be read")
    found = read()
    docker("rm", "--force", "--volumes", prometheus)
    assert found == expected


def test_containers_that_are_killed_lose_nothing(fleet: Fleet, load: Load) -> None:
    project = fleet.checkout.project
    fleet.driver.control("PUT", "switches", {"tool_seconds": 2.0})  # so that each is at work
    fleet.checkout.run("scale", "--workers", "callback", "--replicas", "2")
    with project.ends() as ends, load:
        wait_for(lambda: len(load.runs) > 3, 30, "work to come in")
        for service in ("file-processing", "callback"):
            docker("kill", project.running(service)[0])
            time.sleep(3)
    assert sorted(ends) == [("callback", 137), ("file-processing", 137)]
    load.all_complete()
    fleet.checkout.run("deploy", "--tag", "t1")  # as many of each as the environment's file says
    assert {name: len(project.running(name)) for name in OURS} == dict.fromkeys(OURS, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may kill the processes of containers from outside")
def test_workers_that_die_by_themselves_are_started_again(fleet: Fleet, load: Load) -> None:
    """As when the kernel kills one for its memory: unlike `docker kill`, nobody has asked the engine for it."""
    with load:
        wait_for(lambda: len(load.runs) > 1, 30, "work to come in")
        for service in ("file-processing", "api-deployment", "callback"):
            (before,) = fleet.checkout.project.containers(service)
            os.kill(before["State"]["Pid"], signal.SIGKILL)
    load.all_complete()
    everything_runs(fleet.checkout, "t1")
    restarted = [one for one in OURS for each in fleet.checkout.project.containers(one) if each["RestartCount"] == 1]
    assert sorted(restarted) == ["api-deployment", "callback", "file-processing"]


def test_an_update_under_load_loses_nothing(fleet: Fleet, load: Load) -> None:
    fleet.checkout.run("images", "--tag", "t2")
    servers = fleet.checkout.project.running("backend")
    with fleet.checkout.project.ends() as ends, load:
        fleet.checkout.run("update", "--tag", "t2")
    everything_runs(fleet.checkout, "t2")
    load.all_complete()
    assert sorted(ends) == [(name, 0) for name in sorted(OURS)]
    assert fleet.checkout.project.running("backend") == servers


CHANGES = [
    ("deploy", "--tag", "t1"),
    ("update", "--tag", "t1"),
    ("scale", "--workers", "file,callback", "--replicas", "2"),
    ("rollback",),
    ("stop",),
    ("remove",),
    ("images", "--tag", "t3"),
]


@pytest.mark.parametrize("change", CHANGES, ids=[action for action, *_ in CHANGES])
def test_a_dry_run_says_what_it_would_do_and_changes_nothing(fleet: Fleet, change: tuple[str, ...]) -> None:
    def everything() -> tuple[object, ...]:
        images = sorted(docker("image", "ls", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").splitlines())
        return fleet.checkout.project.states(), fleet.checkout.files(), images

    before = everything()
    assert "+ docker " in fleet.checkout.run(*change, "--dry-run")
    assert everything() == before


@pytest.mark.usefixtures("checkout")
def test_a_dry_run_of_the_first_deployment_makes_nothing_either(tmp_path: Path) -> None:
    untouched = Checkout(tmp_path)
    before = untouched.files()
    said = untouched.run("deploy", "--dry-run")
    assert "would make docker/development.env" in said
    assert "+ docker " in said
    assert untouched.files() == before
    assert untouched.project.left() == []


def test_a_rollback_returns_to_the_deployment_before(fleet: Fleet, load: Load) -> None:
    with load:
        fleet.checkout.run("rollback")
    everything_runs(fleet.checkout, "t1")
    load.all_complete()


@pytest.mark.parametrize("how", BROKEN)
def test_an_update_to_what_does_not_work_takes_itself_back(fleet: Fleet, load: Load, how: str) -> None:
    image = f"{fleet.checkout.name}/file-processing"
    # What comes in the minutes that this takes is then done soon.
    fleet.driver.control("PUT", "switches", {"tool_seconds": 0.1})
    docker("build", "--tag", f"{image}:{how}", "-", given=ENTRYPOINT.format(image=f"{image}:t1", does=BROKEN[how]))
    with load:
        wait_for(lambda: len(load.runs) > 3, 30, "work to come in")
        said = fleet.checkout.run("update", "--workers", "file", "--tag", how, code=1)
    assert "the last good one" in said.splitlines()[-1]
    assert "is back and ready" in said.splitlines()[-1]
    everything_runs(fleet.checkout, "t1")
    load.all_complete()
    assert re.search(rf"the last attempt: .*returned.*tag {how}", fleet.checkout.run("status"))


def test_two_runs_do_not_work_at_once(fleet: Fleet) -> None:
    with fleet.checkout.start("update", "--tag", "t2") as first:
        assert first.stdout is not None
        begun = first.stdout.readline()
        refused = fleet.checkout.run("scale", "--workers", "file", "--replicas", "2", code=1)
        assert first.poll() is None
        fleet.checkout.run("status")
        finished(first)
    assert begun
    assert "another run is at work on development" in refused
    assert len(fleet.checkout.project.running("file-processing")) == 1
    everything_runs(fleet.checkout, "t2")


def test_production_asks_before_anything_is_changed(fleet: Fleet) -> None:
    before = fleet.checkout.project.states(), fleet.checkout.files()
    said = fleet.checkout.run("stop", environment="production", code=1)
    assert "production asks" in said
    assert "--yes" in said
    asking, terminal = pty.openpty()
    with fleet.checkout.start("stop", environment="production", stdin=terminal) as script:
        os.write(asking, b"no\n")
        assert "nothing was changed" in finished(script, 1)
    os.close(asking)
    os.close(terminal)
    assert (fleet.checkout.project.states(), fleet.checkout.files()) == before


def test_a_key_that_is_not_set_is_named(fleet: Fleet) -> None:
    folder = fleet.checkout.folder / "docker"
    good = (folder / "development.env").read_text()
    needed = re.findall(r"^(\w+)=.", good, re.MULTILINE)
    assert "INTERNAL_SERVICE_API_KEY_FILE" in needed
    (folder / "staging.env").write_text(re.sub(r"^(\w+_FILE)=.*", r"\1=", good, flags=re.MULTILINE))
    said = fleet.checkout.run("deploy", environment="staging", code=1)
    assert {name for name in needed if name.endswith("_FILE") and f"{name} is empty" not in said} == set()
    (folder / "staging.env").write_text(good.replace("development/internal_service", "nowhere/internal_service"))
    said = fleet.checkout.run("deploy", environment="staging", code=1)
    assert "INTERNAL_SERVICE_API_KEY_FILE names" in said
    (folder / "staging.env").unlink()
    assert "there is no docker/staging.env" in fleet.checkout.run("deploy", environment="staging", code=1)


def test_a_rollback_starts_what_was_stopped(fleet: Fleet) -> None:
    fleet.checkout.run("deploy", "--tag", "t1")
    fleet.checkout.run("update", "--tag", "t2")
    fleet.checkout.run("stop")
    assert fleet.checkout.project.services() == set()
    fleet.checkout.run("rollback")
    everything_runs(fleet.checkout, "t1")


def test_a_rollback_leaves_behind_what_was_broken_off(fleet: Fleet) -> None:
    """And not the last good deployment, too."""
    with fleet.checkout.start("update", "--tag", "t2") as script:
        assert script.stdout is not None
        while not script.stdout.readline().startswith("general: "):
            assert script.poll() is None
        script.terminate()
    assert "the last attempt:" in fleet.checkout.run("status")
    fleet.checkout.run("rollback")
    everything_runs(fleet.checkout, "t1")


def test_a_secret_that_is_changed_reaches_who_reads_it(fleet: Fleet) -> None:
    key = fleet.checkout.folder / "docker/secrets/development/internal_service_api_key"
    before = {name: fleet.checkout.project.running(name) for name in ("general", "beat", "redis")}
    usual = key.read_text()
    key.write_text("another-key-that-nobody-knows")
    fleet.checkout.run("deploy", "--tag", "t1")
    everything_runs(fleet.checkout, "t1")
    after = {name: fleet.checkout.project.running(name) for name in before}
    key.write_text(usual)
    fleet.checkout.run("deploy", "--tag", "t1")
    assert after["general"] != before["general"]
    assert (after["beat"], after["redis"]) == (before["beat"], before["redis"])


def test_workers_may_have_their_servers_elsewhere(fleet: Fleet) -> None:
    """Compose takes no file back that has dependencies on what is not in it."""
    folder = fleet.checkout.folder / "docker"
    good = (folder / "development.env").read_text()
    (folder / "staging.env").write_text(re.sub("^COMPOSE_PROFILES=.*", "COMPOSE_PROFILES=workers", good, flags=re.M))
    said = fleet.checkout.run("deploy", "--tag", "t1", "--dry-run", environment="staging")
    (folder / "staging.env").unlink()
    assert "servers:" not in said
    assert all(f"--no-deps {name}" in said for name in OURS)


@pytest.mark.parametrize(
    ("whom", "tool_runs"),
    # With everything the backend goes too, in the middle of its tools, and it is the backend that runs them again.
    [(("--workers", "api,general,file,callback,beat"), 1), ((), 2)],
    ids=["workers", "everything"],
)
def test_a_stop_drains_and_what_was_at_work_completes_after_the_next_deployment(
    fleet: Fleet, load: Load, whom: tuple[str, ...], tool_runs: int
) -> None:
    fleet.driver.control("PUT", "switches", {"tool_seconds": 4.0})
    with load:
        wait_for(lambda: len(load.runs) > 4, 30, "work to come in")
    unfinished: list[Run] = load.at_work()
    assert unfinished
    before = fleet.checkout.project.services()
    with fleet.checkout.project.ends() as ends:
        fleet.checkout.run("stop", *whom)
    stopped = before - fleet.checkout.project.services()
    assert stopped == ({*OURS} - {"monitor"} if whom else before)
    assert sorted(name for name, _ in ends) == sorted(stopped)
    assert {(name, code) for name, code in ends if name in OURS and code != 0} == set()
    assert 137 not in {code for _, code in ends}
    fleet.checkout.run("deploy", "--tag", "t1")
    load.all_complete(tool_runs)


def test_nothing_is_left_of_what_is_removed(fleet: Fleet) -> None:
    kept = {path for path in fleet.checkout.files() if "/docker/" in path}
    said = fleet.checkout.run("remove", "--yes")
    assert fleet.checkout.project.left() == []
    assert "with all data" in said
    assert {path for path in fleet.checkout.files() if "/docker/" in path} == kept
    assert "deployed to development (compose): nothing" in fleet.checkout.run("status")
