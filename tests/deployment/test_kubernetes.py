"""The manifests of docker/kubernetes as kubectl renders them: what an API server takes, and what is meant."""

import copy
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from config.queue_routing import QUEUES
from config.workers import GRACE_SECONDS, MONITOR_HEALTH_PORT, profile_named
from shared.config import BaseSettings, MonitorSettings, Settings
from shared.variables import SettingsError, takes_file
from tests.deployment.manifests import (
    DASHED,
    ENVIRONMENTS,
    NAME,
    OVERLAYS,
    PORTS,
    Object,
    Rendered,
    check,
    container,
    overlay,
    rendered,
    unrestricted,
)

# What each process reads of its environment.
READS = {"beat": BaseSettings, "monitor": MonitorSettings} | dict.fromkeys(DASHED, Settings)


@pytest.fixture(params=ENVIRONMENTS)
def made(request: pytest.FixtureRequest) -> Rendered:
    """Each overlay."""
    return overlay(request.param)


def test_there_is_an_overlay_for_each_environment() -> None:
    assert ENVIRONMENTS == ("development", "production", "staging")


# The oldest and the newest that it can be asked about and that have all we use.
@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_an_api_server_takes_every_object(made: Rendered, version: str) -> None:
    for each in made.objects:
        check(each, version)
    assert {each["metadata"].get("namespace", made.environment) for each in made.objects} == {
        made.environment,  # of the namespace itself
        f"unstract-workers-{made.environment}",
    }


def _spelled_wrong(each: Object) -> Iterator[Object]:
    """The same with a field more in one of its objects, for each of these."""
    if isinstance(each, dict) and not {"matchLabels", "labels"} & each.keys():
        yield {**each, "spelledWrong": 1}
    for key in ("spec", "template", "containers", "triggers", "groups", "rules", "podMetricsEndpoints", "advanced"):
        inner = each.get(key)
        if isinstance(inner, dict):
            yield from ({**each, key: other} for other in _spelled_wrong(inner))
        elif isinstance(inner, list):
            yield from ({**each, key: [other, *inner[1:]]} for other in _spelled_wrong(inner[0]))


def test_a_field_that_does_not_exist_is_noticed() -> None:
    for each in overlay("production").objects:
        for wrong in _spelled_wrong(each):
            with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
                check(wrong, "1.37")


def test_every_queue_is_consumed_by_one_deployment(made: Rendered) -> None:
    commands = [container(pod)["args"] for pod in made.pods().values()]
    consumed = [queue for argv in commands if argv[0] == "run" for queue in profile_named(argv[1]).queues]
    assert sorted(consumed) == sorted(QUEUES)
    assert [argv for argv in commands if argv[0] != "run"] == [["beat"], ["monitor"]]


def test_ports_are_those_of_the_registry(made: Rendered) -> None:
    pods = made.pods()
    assert pods.keys() == PORTS.keys()
    for name, pod in pods.items():
        (port,) = container(pod)["ports"]
        assert port["containerPort"] == PORTS[name]
        probes = {key: value for key, value in container(pod).items() if key.endswith("Probe")}
        assert {probe["httpGet"]["port"] for probe in probes.values()} == {port["name"]}
        assert {key: probe["httpGet"]["path"] for key, probe in probes.items()} == {
            "startupProbe": "/livez",
            "livenessProbe": "/livez",
            "readinessProbe": "/readyz",
        }
        # Beat has no metrics, and no port that is called as those are.
        assert (port["name"] == "health") is (name != "beat")
        scraped = pod["metadata"].get("annotations", {}).get("prometheus.io/port")
        assert scraped == (None if name == "beat" else str(PORTS[name]))
        policy = made.of("NetworkPolicy")[name]["spec"]
        assert [way["port"] for rule in policy["ingress"] for way in rule["ports"]] == [PORTS[name]]
    (service,) = made.of("Service").values()
    assert [port["port"] for port in service["spec"]["ports"]] == [MONITOR_HEALTH_PORT]
    assert service["spec"]["ports"][0]["targetPort"] == "health"


def test_a_process_has_time_to_end_itself_and_to_answer(made: Rendered) -> None:
    for pod in made.pods().values():
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        assert grace == GRACE_SECONDS > float(made.settings()["DRAIN_SECONDS"])
        assert container(pod)["readinessProbe"]["timeoutSeconds"] >= 5  # OPERATIONS.md, Health


def test_each_is_given_what_the_registry_says(made: Rendered) -> None:
    for name, worker in DASHED.items():
        pod = made.pods()[name]["spec"]
        resources = container({"spec": pod})["resources"]
        memory = f"{worker.room.memory}Mi"
        cpu = "10m" if made.environment == "development" else f"{worker.room.cpu}m"
        assert resources == {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}
        wanted = re.findall(r"unstract\.workers/plenty-of-(\w+)", str(pod.get("affinity")))
        assert wanted == ([worker.room.node] if worker.room.node else [])


def test_pods_keep_to_the_restricted_profile(made: Rendered) -> None:
    assert [(name, list(unrestricted(pod))) for name, pod in made.pods().items() if list(unrestricted(pod))] == []
    (namespace,) = made.of("Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in made.pods().values():
        spec, security = pod["spec"], container(pod)["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert [spec["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")] == [10001] * 3
        assert spec["automountServiceAccountToken"] is False
        assert made.of("ServiceAccount")[spec["serviceAccountName"]]["automountServiceAccountToken"] is False


BREAKS: dict[str, Callable[[Object, Object], Any]] = {
    "hostNetwork": lambda spec, _: spec.update(hostNetwork=True),
    "hostPath": lambda spec, _: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "hostPort": lambda _, each: each["ports"][0].update(hostPort=80),
    "privileged": lambda _, each: each["securityContext"].update(privileged=True),
    "allowPrivilegeEscalation": lambda _, each: each["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities.drop": lambda _, each: each["securityContext"].pop("capabilities"),
    "capabilities.add": lambda _, each: each["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "seccompProfile": lambda spec, _: spec["securityContext"].pop("seccompProfile"),
    "runAsNonRoot": lambda spec, _: spec["securityContext"].pop("runAsNonRoot"),
    "runAsUser": lambda _, each: each["securityContext"].update(runAsUser=0),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_the_restricted_profile_forbids_is_noticed(broken: str) -> None:
    pod = copy.deepcopy(overlay("production").pods()["general"])
    BREAKS[broken](pod["spec"], pod["spec"]["containers"][0])
    assert list(unrestricted(pod)) == [broken]


def _selected(made: Rendered, labels: Object) -> list[str]:
    return [name for name, pod in made.pods().items() if labels.items() <= pod["metadata"]["labels"].items()]


def test_selectors_find_what_they_are_for(made: Rendered) -> None:
    for kind in ("Deployment", "PodDisruptionBudget"):
        for name, each in made.of(kind).items():
            assert _selected(made, each["spec"]["selector"]["matchLabels"]) == [name]
    for name, each in made.of("NetworkPolicy").items():
        assert _selected(made, each["spec"]["podSelector"]["matchLabels"]) == [name.removesuffix("-from-keda")]
    assert _selected(made, made.of("Service")["monitor"]["spec"]["selector"]) == ["monitor"]
    for each in made.of("PodMonitor").values():
        assert _selected(made, each["spec"]["selector"]["matchLabels"]) == list(made.pods())
    for pod in made.pods().values():
        for spread in pod["spec"]["topologySpreadConstraints"]:
            assert _selected(made, spread["labelSelector"]["matchLabels"]) == [pod["metadata"]["labels"][NAME]]
        (settings,) = container(pod)["envFrom"]
        assert settings["configMapRef"]["name"] in made.of("ConfigMap")


def test_no_budget_keeps_a_node_from_being_drained(made: Rendered) -> None:
    budgets = {name: each["spec"] for name, each in made.of("PodDisruptionBudget").items()}
    assert budgets.keys() == DASHED.keys()
    for budget in budgets.values():
        assert "minAvailable" not in budget  # which one replica could not keep to
        assert budget["maxUnavailable"] >= 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_an_update_takes_no_worker_away_and_never_has_two_beats(made: Rendered) -> None:
    for name, each in made.of("Deployment").items():
        strategy = each["spec"]["strategy"]
        assert (strategy["type"] == "Recreate") is (name == "beat")
        assert name == "beat" or strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_only_general_calls_the_world_and_nothing_private(made: Rendered) -> None:
    open_to = {
        name: [peer["ipBlock"] for rule in each["spec"].get("egress", ()) for peer in rule.get("to", ())]
        for name, each in made.of("NetworkPolicy").items()
    }
    assert [name for name, blocks in open_to.items() if blocks] == ["general"]
    assert [block["cidr"] for block in open_to["general"]] == ["0.0.0.0/0", "::/0"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "fc00::/7"} <= {
        net for each in open_to["general"] for net in each["except"]
    }
    for name in PORTS:
        rules = made.of("NetworkPolicy")[name]["spec"]["egress"]
        ports = [way["port"] for rule in rules for way in rule.get("ports", ())]
        assert {53, 5671, 5672, 6379} <= set(ports)
        assert (443 in ports) is (name in DASHED)
        assert all(rule.get("to") or rule.get("ports") for rule in rules)  # neither would be everything


def _commented(environment: str) -> dict[str, str]:
    """What its settings.env has, also what is commented out."""
    lines = (OVERLAYS / environment / "settings.env").read_text().splitlines()
    return dict(line.removeprefix("#").split("=", 1) for line in lines if "=" in line and not line.startswith("# "))


def test_every_file_with_a_secret_is_mounted(made: Rendered) -> None:
    named = _commented(made.environment) | made.settings()
    for name, pod in made.pods().items():
        (mount,) = [each for each in container(pod)["volumeMounts"] if each["name"] == "secrets"]
        (volume,) = [each["projected"] for each in pod["spec"]["volumes"] if each["name"] == "secrets"]
        assert volume["defaultMode"] == 0o440
        found = {
            f"{mount['mountPath']}/{item['path']}": source["secret"].get("optional", False)
            for source in volume["sources"]
            for item in source["secret"]["items"]
        }
        specs = [spec.metadata for spec in READS[name].__dataclass_fields__.values()]
        read = [spec["name"] for spec in specs if takes_file(spec["parse"]) and f"{spec['name']}_FILE" in named]
        assert {named[f"{each}_FILE"] for each in read} == found.keys()
        # What is commented out may be missing.
        assert {path for path, optional in found.items() if not optional} == {
            made.settings()[f"{each}_FILE"] for each in read if f"{each}_FILE" in made.settings()
        }


def test_settings_are_those_of_the_environment_and_name_what_to_put_in(made: Rendered) -> None:
    secrets = {"CELERY_BROKER_URL": "amqp://u:p@h//", "INTERNAL_SERVICE_API_KEY": "a-key-of-a-test-that-is-long"}
    plain = {key: value for key, value in made.settings().items() if not key.endswith("_FILE")}
    assert plain["ENVIRONMENT"] == made.environment
    with pytest.raises(SettingsError) as caught:
        Settings.load(plain | secrets)
    to_replace = [key for key, value in plain.items() if value.startswith("<") and value.endswith(">")]
    assert to_replace == [line.split(" ", 1)[0] for line in sorted(str(caught.value).splitlines())]
    filled = {"CACHE_REDIS_HOST": "redis", "INTERNAL_API_BASE_URL": "http://backend:8000/internal"}
    assert to_replace == list(filled)
    assert Settings.load(plain | secrets | filled).environment == made.environment
    known = {spec.metadata["name"] for each in READS.values() for spec in each.__dataclass_fields__.values()}
    assert {key.removesuffix("_FILE") for key in _commented(made.environment) | made.settings()} <= known


def test_all_images_have_a_tag_and_may_be_given_another(tmp_path: Path, made: Rendered) -> None:
    images = [container(pod)["image"].split(":") for pod in made.pods().values()]
    assert sorted(name for name, _tag in images) == sorted(f"unstract-workers/{name}" for name in PORTS)
    shutil.copytree(OVERLAYS.parent, tmp_path, dirs_exist_ok=True)
    release = tmp_path / "overlays" / "release"
    release.mkdir()
    tagged = {
        "resources": [f"../{made.environment}"],
        "images": [{"name": name, "newTag": "1.2"} for name, _ in images],
    }
    (release / "kustomization.yaml").write_text(yaml.safe_dump(tagged))
    again = Rendered(made.environment, rendered(release))
    assert [container(pod)["image"] for pod in again.pods().values()] == [f"{name}:1.2" for name, _ in images]
