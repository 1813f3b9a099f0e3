"""scripts/deploy.sh --target kubernetes: the real kubectl, and a stand-in for the API server, kubernetes_api.py."""

import copy
import fcntl
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.deployment.kubernetes_api import PAUSED, image_of
from tests.deployment.kubernetes_site import KEYS, Site, made, point
from tests.deployment.manifests import NAME, ROOT, check, container, unrestricted

ORDER = ("callback", "file-processing", "general", "api-deployment", "beat", "monitor")
VERIFY = "routing verify --profiles callback,file_processing,general,api_deployment"
First = Callable[[str], Site]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> First:
    """An environment after its first deployment, which is made once: its server has ended, what it held is there."""

    @cache
    def deploy(environment: str) -> Site:
        with made(tmp_path_factory.mktemp(environment)) as site:
            site.environment = environment
            site.done("deploy", "--yes")
            return site

    return deploy


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Nothing is deployed."""
    with made(tmp_path) as site:
        yield site


@pytest.fixture
def deployed(request: pytest.FixtureRequest, site: Site, first: First) -> Site:
    """That environment, development unless a test says another, as its first deployment has left it."""
    before = first(getattr(request, "param", "development"))
    site.environment = before.environment
    shutil.copytree(before.tree / ".deployments", site.tree / ".deployments")
    site.cluster.objects = copy.deepcopy(before.cluster.objects)
    site.cluster.applied = copy.deepcopy(before.cluster.applied)
    return site


AUTOSCALED = pytest.mark.parametrize("deployed", ["staging"], indirect=True)


def test_each_is_ready_before_the_next_is_touched(first: First) -> None:
    site = first("development")
    assert site.cluster.told == [f"{what} {name}" for name in ORDER for what in ("apply", "ready")]
    assert site.cluster.images() == {name: f"unstract-workers/{name}:0.1.0" for name in ORDER}
    assert site.records() == {"0001": "good"}
    about = (site.folder / "0001" / "about").read_text()
    assert "tag 0.1.0\n" in about
    assert "context stand-in\n" in about


@pytest.mark.parametrize("environment", ["development", "staging"])
def test_the_check_is_a_pod_like_the_workers_that_runs_once(first: First, environment: str) -> None:
    site = first(environment)
    (job,) = site.cluster.jobs
    pod, worker = job["spec"]["template"], site.cluster.named("deployments")["callback"]["spec"]["template"]
    given = {key: job[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "check"}}
    for version in ("1.31", "1.37"):
        check(given, version)
    assert list(unrestricted(pod)) == []
    assert (pod["spec"]["restartPolicy"], job["spec"]["backoffLimit"]) == ("Never", 0)
    assert container(pod)["args"] == [VERIFY, "check"]
    same = ("image", "envFrom", "volumeMounts", "securityContext", "resources")
    assert [container(pod)[key] for key in same] == [container(worker)[key] for key in same]
    assert not {"ports", "startupProbe", "livenessProbe", "readinessProbe"} & container(pod).keys()
    assert pod["spec"]["volumes"] == worker["spec"]["volumes"]
    assert pod["metadata"]["labels"][NAME] == "check"
    # It was there while it was needed, with the ways out that a worker has, and is gone.
    (policy,) = site.cluster.policies
    assert policy["spec"]["egress"] == site.cluster.named("networkpolicies")["callback"]["spec"]["egress"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert "ingress" not in policy["spec"]
    assert not site.cluster.named("jobs")
    assert "check" not in site.cluster.named("networkpolicies")


def test_what_the_overlay_gives_a_worker_the_check_has_too(site: Site) -> None:
    file = site.tree / "docker" / "kubernetes" / "overlays" / "development" / "kustomization.yaml"
    overlay = yaml.safe_load(file.read_text())
    added = "- {op: add, path: /spec/template/spec/imagePullSecrets, value: [{name: registry}]}"
    overlay["patches"].append({"target": {"kind": "Deployment"}, "patch": added})
    for each in overlay["images"]:
        each["newName"] = each["name"].replace("unstract-workers", "registry.example:5000/workers")
    file.write_text(yaml.safe_dump(overlay))
    site.done("deploy", "--workers", "api", "--tag", "1.2")
    (job,) = site.cluster.jobs
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert image_of(job) == "registry.example:5000/workers/api-deployment:1.2"
    assert site.cluster.images() == {"api-deployment": image_of(job)}


def test_an_update_changes_those_that_are_named_alone(deployed: Site) -> None:
    before = deployed.deployments()
    deployed.done("update", "--workers", "general", "--tag", "1.2")
    after = deployed.deployments()
    assert [name for name in ORDER if after[name] != before[name]] == ["general"]
    assert deployed.cluster.images()["general"] == "unstract-workers/general:1.2"
    assert deployed.cluster.told == ["apply general", "ready general"]
    assert image_of(deployed.cluster.jobs[0]) == "unstract-workers/general:1.2"
    assert deployed.records() == {"0001": "good", "0002": "good"}
    deployed.done("rollback")
    assert deployed.deployments() == before
    assert deployed.records() == {"0001": "good", "0002": "withdrawn"}


@pytest.mark.parametrize(
    ("tag", "reason"),
    [("2-broken", "callback-2-0 is in CrashLoopBackOff"), ("2-stuck", "callback did not become ready")],
)
def test_an_update_that_fails_is_taken_back(deployed: Site, tag: str, reason: str) -> None:
    before = deployed.deployments()
    said = deployed.failed("update", "--workers", "callback,general", "--tag", tag)
    assert reason in said
    assert "the deployment failed; the last good one, 0001, is back and ready" in said
    assert deployed.deployments() == before
    # Of those that were named both are as they were; nobody else was touched, by the update or by the return.
    assert deployed.cluster.told == [
        "apply callback",
        "apply callback",
        "ready callback",
        "apply general",
    ]  # who was not changed is ready as it is
    assert deployed.records() == {"0001": "good", "0002": "returned"}


def test_a_first_deployment_that_fails_is_left_to_be_looked_at_and_can_be_removed(site: Site) -> None:
    assert "there is no good one to return to" in site.failed("deploy", "--tag", "2-broken")
    assert site.cluster.images() == {"callback": "unstract-workers/callback:2-broken"}
    shown = site.done("status")
    assert "0001 (failed" in shown
    assert "pod/callback-1-0" in shown
    site.done("remove")
    assert (site.cluster.images(), site.folder.exists()) == ({}, False)


@pytest.mark.parametrize(
    ("tag", "reason"), [("2-unfit", "the log of check-pod-0"), ("2-missing", "check-pod-0 is in ImagePullBackOff")]
)
def test_a_check_that_fails_leaves_all_as_it_is(deployed: Site, tag: str, reason: str) -> None:
    before = deployed.deployments()
    said = deployed.failed("update", "--tag", tag)
    assert reason in said
    assert "the check failed; none of our processes was changed" in said
    assert (deployed.deployments(), deployed.cluster.told) == (before, [])
    assert not deployed.cluster.named("jobs")
    assert deployed.records() == {"0001": "good", "0002": "refused"}


def test_replicas_without_an_autoscaler(deployed: Site) -> None:
    assert deployed.run("scale", "--replicas", "3").returncode == 2
    deployed.done("scale", "--workers", "file", "--replicas", "3")
    assert deployed.replicas() == dict.fromkeys(ORDER, 1) | {"file-processing": 3}
    # What is said of it afterwards is said on top of that.
    deployed.done("update", "--workers", "file", "--tag", "1.2")
    assert deployed.replicas()["file-processing"] == 3


@AUTOSCALED
def test_replicas_beside_an_autoscaler(deployed: Site) -> None:
    deployed.done("scale", "--workers", "general", "--replicas", "3")
    paused = {
        name: each["metadata"].get("annotations") for name, each in deployed.cluster.named("scaledobjects").items()
    }
    assert paused == dict.fromkeys(paused) | {"general": {PAUSED: "3"}}
    assert deployed.replicas() == dict.fromkeys(ORDER, 1) | {"general": 3}
    assert "replicas" not in deployed.cluster.applied["deployments", "unstract-workers-staging", "general"]["spec"]
    deployed.done("deploy", "--workers", "general")
    assert not deployed.cluster.named("scaledobjects")["general"]["metadata"].get("annotations")


@pytest.mark.parametrize("deployed", ["development", "staging"], indirect=True)
def test_a_stop_begins_with_beat_and_a_deployment_ends_it(deployed: Site) -> None:
    deployed.done("stop")
    assert deployed.replicas() == dict.fromkeys(ORDER, 0)
    assert deployed.cluster.named("pods") == {}
    assert deployed.cluster.told[:2] == ["apply beat", "ready beat"]  # none are as many as it wants
    deployed.cluster.told.clear()
    deployed.done("deploy", "--workers", "callback,beat")
    assert deployed.replicas() == dict.fromkeys(ORDER, 0) | {"callback": 1, "beat": 1}
    assert deployed.cluster.told == ["apply callback", "ready callback", "apply beat", "ready beat"]


@AUTOSCALED
def test_a_removal_takes_all_that_was_deployed_and_leaves_the_secret(deployed: Site) -> None:
    assert "workers-secrets, which is yours" in deployed.done("remove")
    left = {(plural, name) for plural, namespace, name in deployed.cluster.objects if namespace.endswith("-staging")}
    assert left == {("secrets", "workers-secrets")}
    assert "unstract-workers-staging" in deployed.cluster.named("namespaces")
    assert not deployed.folder.exists()
    assert deployed.failed("stop").endswith("begin with --action deploy\n")


@AUTOSCALED
def test_what_the_overlay_has_no_more_is_retired(deployed: Site) -> None:
    overlay = deployed.tree / "docker" / "kubernetes" / "overlays" / "staging"
    text = (overlay / "kustomization.yaml").read_text()
    (overlay / "kustomization.yaml").write_text(text.replace("  - ../../components/prometheus-operator\n", ""))
    (overlay / "settings.env").write_text((overlay / "settings.env").read_text().replace("INFO", "DEBUG"))
    (before,) = deployed.cluster.named("configmaps")
    # Whoever is not of --workers keeps what it has.
    deployed.done("deploy", "--workers", "callback")
    settings = {
        name: container(each["spec"]["template"])["envFrom"][0]["configMapRef"]["name"]
        for name, each in deployed.cluster.named("deployments").items()
    }
    assert settings == dict.fromkeys(ORDER, before) | {"callback": settings["callback"]}
    assert set(deployed.cluster.named("configmaps")) == {before, settings["callback"]} != {before}
    deployed.done("deploy")
    assert list(deployed.cluster.named("configmaps")) == [settings["callback"]]
    assert not deployed.cluster.named("podmonitors")
    assert deployed.cluster.named("scaledobjects")


@pytest.mark.parametrize(
    "argv",
    [
        ("deploy",),
        ("update", "--tag", "1.2"),
        ("scale", "--workers", "general", "--replicas", "3"),
        ("stop",),
        ("remove",),
    ],
    ids=lambda argv: str(argv[0]),
)
def test_a_dry_run_says_what_it_would_do_and_writes_nothing(deployed: Site, argv: tuple[str, ...]) -> None:
    records = {path: path.stat().st_mtime_ns for path in (deployed.tree / ".deployments").rglob("*")}
    shown = deployed.done(*argv, "--dry-run")
    assert "+ kubectl --context stand-in apply --server-side" in shown
    assert deployed.cluster.requests
    assert deployed.cluster.written == []
    assert {path: path.stat().st_mtime_ns for path in (deployed.tree / ".deployments").rglob("*")} == records


def test_what_is_deployed_is_shown(deployed: Site) -> None:
    shown = deployed.done("status")
    assert "0001 (good" in shown
    assert all(f"{kind}/general" in shown for kind in ("deployment.apps", "pod"))
    assert "[pod/beat-1-0/beat] the log of beat-1-0" in deployed.done("logs", "--workers", "beat")
    shown = deployed.done("config", "--workers", "general", "--tag", "1.2", KUBECONFIG="/dev/null")
    assert "image: unstract-workers/general:1.2" in shown
    assert "image: unstract-workers/beat:0.1.0" in shown
    assert deployed.cluster.written == []


def test_settings_that_are_not_filled_in(site: Site) -> None:
    shutil.rmtree(site.tree / "docker")
    shutil.copytree(ROOT / "docker" / "kubernetes", site.tree / "docker" / "kubernetes")
    said = site.failed("deploy")
    assert "docker/kubernetes/overlays/development/settings.env is not right" in said
    assert all(f"{name}=<" in said for name in ("INTERNAL_API_BASE_URL", "CACHE_REDIS_HOST"))
    assert site.cluster.requests == []


@pytest.mark.parametrize("lost", [None, "celery_broker_url"])
def test_a_secret_that_lacks_something(site: Site, lost: str | None) -> None:
    key = ("secrets", "unstract-workers-development", "workers-secrets")
    if lost:
        site.cluster.objects[key]["data"][lost] = ""
    else:
        del site.cluster.objects[key]
    said = site.failed("deploy")
    lacking = [lost] if lost else sorted(KEYS)
    assert (
        f"the secret workers-secrets of the namespace unstract-workers-development lacks: {' '.join(lacking)}." in said
    )
    asked = " ".join(f"--from-file={each}" for each in sorted(KEYS))
    assert f"--namespace unstract-workers-development create secret generic workers-secrets {asked}" in said
    assert site.cluster.written == []


def test_no_cluster_or_another_one(deployed: Site) -> None:
    kubeconfig = (deployed.tree / "kubeconfig").read_text()
    point(deployed.tree, "http://127.0.0.1:1")
    assert "the cluster of context stand-in does not answer" in deployed.failed("update", "--tag", "1.2")
    (deployed.tree / "kubeconfig").write_text(kubeconfig.replace("stand-in", "elsewhere"))
    said = deployed.failed("update", "--tag", "1.2")
    assert "deployed in the cluster of context stand-in, and this is elsewhere" in said
    assert "kubectl has no current context" in deployed.failed("status", KUBECONFIG="/dev/null")
    assert deployed.cluster.written == []
    assert deployed.records() == {"0001": "good"}


def test_one_run_at_a_time(deployed: Site) -> None:
    with (deployed.folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run is at work on development (kubernetes)" in deployed.failed("stop")
    assert deployed.cluster.requests == []


def test_production_asks_and_names_the_cluster(site: Site) -> None:
    site.environment = "production"
    assert "say --yes" in site.failed("deploy")
    master, slave = pty.openpty()
    os.write(master, b"yes\n")
    ran = subprocess.run(
        site.command("deploy"),
        env=site.variables(),
        stdin=slave,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(master)
    os.close(slave)
    assert ran.returncode == 1
    assert "changes production in the cluster of context stand-in. Type production to go on" in ran.stderr
    assert "nothing was changed" in ran.stderr
    assert site.cluster.written == []


@pytest.mark.parametrize(("broken", "code"), [("", 0), ("check", 1), ("--broker", 0), ("verify", 1)])
def test_the_check_asks_everything_without_a_shell(first: First, tmp_path: Path, broken: str, code: int) -> None:
    """What it names with a `-` is shown, and may fail."""
    (job,) = first("development").cluster.jobs
    program, *argv = container(job["spec"]["template"])["command"]
    assert program == "python"
    workers = tmp_path / "workers"
    workers.write_text(f'#!/bin/sh\necho "$@"; case "$* " in *"{broken or "nothing"} "*) exit 3;; esac\n')
    workers.chmod(0o755)
    asked = [sys.executable, *argv, "routing verify", "check", "-routing --broker"]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ran = subprocess.run(asked, env=path, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines() == ["routing verify", "check", "routing --broker"]
    assert ran.returncode == code


@pytest.mark.parametrize(
    ("takeover", "beside"), [("verify", f"-{VERIFY} --broker"), ("share", f"{VERIFY} --broker --alone")]
)
def test_beside_the_workers_of_another_platform(site: Site, takeover: str, beside: str) -> None:
    said = site.done("deploy", TAKEOVER=takeover)
    (job,) = site.cluster.jobs
    assert container(job["spec"]["template"])["args"] == [VERIFY, "check", beside]
    if takeover == "verify":
        assert "no worker was started" in said
        assert (site.cluster.told, site.records()) == ([], {})
    else:
        assert "beat stays out of it" in said
        assert set(site.cluster.images()) == {*ORDER} - {"beat"}


def test_a_kubectl_that_is_too_old(site: Site) -> None:
    old = site.tree / "bin" / "kubectl"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\nprintf 'clientVersion:\\n  gitVersion: v1.26.9\\n'\n")
    old.chmod(0o755)
    said = site.failed("status", PATH=f"{old.parent}:{os.environ['PATH']}")
    assert "kubectl 1.26.9 is too old: 1.27 or newer" in said
