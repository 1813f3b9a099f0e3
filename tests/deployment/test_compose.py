"""docker-compose.workers.yml and sample.env: what compose takes, and what is meant."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.workers import GRACE_SECONDS, LAYOUTS, WORKERS, Profile
from shared.config import FlowerSettings, MonitorSettings, Settings
from shared.variables import SettingsError

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker" / "docker-compose.workers.yml"
SAMPLE = ROOT / "docker" / "sample.env"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if "IMAGE_PREFIX" in one["image"]}


def dashed(profile: Profile) -> str:
    return profile.name.replace("_", "-")


def in_profile(name: str) -> set[str]:
    return {service for service, one in SERVICES.items() if name in one["profiles"]}


def test_compose_takes_it() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    ran = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("layout", ["workers", "fast-slow", "all-in-one"])
def test_a_profile_is_a_layout_of_the_registry(layout: str) -> None:
    assert in_profile(layout) == {*map(dashed, LAYOUTS[layout]), "beat", "monitor"}
    for profile in LAYOUTS[layout]:
        service = SERVICES[dashed(profile)]
        if profile.name not in WORKERS:
            assert service["command"] == ["run", profile.name]
            assert service["healthcheck"]["test"][-2:] == ["shared.probe", profile.name]
        assert service["deploy"]["replicas"] == f"${{{profile.name.upper()}_REPLICAS:-1}}"


def test_workers_have_the_room_of_the_registry() -> None:
    for name, worker in WORKERS.items():
        limits = SERVICES[name.replace("_", "-")]["deploy"]["resources"]["limits"]
        assert limits["memory"] == f"{worker.room.memory}M"


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_is_ours_is_unprivileged_and_stops_in_time(name: str) -> None:
    one = SERVICES[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["stop_grace_period"] == f"{GRACE_SECONDS}s"
    assert one["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_limited_and_starts_again(name: str) -> None:
    one = SERVICES[name]
    assert set(one["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert one["restart"] == "unless-stopped"
    assert one["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", ["rabbitmq", "redis", "postgres"])
def test_who_needs_a_server_waits_until_it_is_healthy(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    waiting = [one["depends_on"][name] for one in OURS.values() if name in one["depends_on"]]
    assert waiting
    assert all(one["condition"] == "service_healthy" for one in waiting)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_secrets_are_files_and_each_is_there(name: str) -> None:
    one = SERVICES[name]
    given = {secret if isinstance(secret, str) else secret["source"] for secret in one.get("secrets", [])}
    assert given <= set(COMPOSE["secrets"])
    named = {value for value in one.get("environment", {}).values() if value.startswith("/run/secrets/")}
    assert {Path(value).name for value in named} <= given
    words = [key for key in one.get("environment", {}) if re.search("PASS|KEY|SECRET|URL|AUTH", key)]
    assert all(key.endswith(("_FILE", "__FILE")) for key in words)


def test_ports_are_published_to_this_machine_alone() -> None:
    published = [port for one in SERVICES.values() for port in one.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_variable_of_the_file_is_in_the_sample() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", FILE.read_text())) - {"ENV_FILE"}
    said = set(re.findall(r"^#?([A-Z_]+)=", SAMPLE.read_text(), re.M))
    assert used - said == set()


def test_the_sample_says_what_holds_and_what_is_missing() -> None:
    lines = SAMPLE.read_text().splitlines()
    said = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))
    filled = {
        "CELERY_BROKER_URL": "amqp://somebody:else@broker//",
        "CACHE_REDIS_HOST": "redis",
        "INTERNAL_API_BASE_URL": "http://backend/internal",
        "INTERNAL_SERVICE_API_KEY": "a-key-that-nobody-knows",
        "FLOWER_BASIC_AUTH": "somebody:a-password-nobody-knows",
    }
    for settings in (Settings, MonitorSettings, FlowerSettings):
        assert settings.load({**said, **filled}) == settings.load(filled)
    required = {line.rstrip("=") for line in lines if re.match(r"[A-Z_]+=$", line)}
    with pytest.raises(SettingsError) as missing:
        Settings.load({})
    names = {line.partition(" ")[0] for line in str(missing.value).splitlines()}
    assert {name.removesuffix("_FILE") for name in required} == names | {"CACHE_REDIS_PASSWORD"}


def test_a_key_that_is_not_set_is_an_error_that_names_it(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed here")
    needed = ("INTERNAL_SERVICE_API_KEY_FILE", "CELERY_BROKER_URL_FILE", "CACHE_REDIS_PASSWORD_FILE")
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "ENV_FILE": "/dev/null"}
    argv = [docker, "compose", "--env-file", "/dev/null", "--file", str(FILE), "--profile", "workers", "config"]
    for missing in needed:
        given = {name: "/dev/null" for name in needed if name != missing}
        ran = subprocess.run(argv, env={**environment, **given}, capture_output=True, text=True, check=False)
        assert ran.returncode != 0
        assert f"required variable {missing} is missing a value: the path of the file with" in ran.stderr
    ran = subprocess.run(
        argv, env={**environment, **dict.fromkeys(needed, "/dev/null")}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


RECORDS = """
set -euo pipefail
root=$1 environment=staging target=compose dry_run=false
for part in common records compose; do source "$root/scripts/deploy/$part.sh"; done
records=$root/.deployments/staging-compose
docker() { :; }
"""


def in_script(root: Path, said: str) -> str:
    """What that prints among the parts of deploy.sh, where there is no engine."""
    ran = subprocess.run(
        ["/bin/bash", "-c", RECORDS + said, "bash", str(root)], capture_output=True, text=True, check=False, cwd="/"
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_old_records_are_forgotten_and_nothing_beside_them(tmp_path: Path) -> None:
    """Not even where the path of the checkout has a blank in it."""
    root, beside = tmp_path / "my dir", tmp_path / "my"
    beside.mkdir()
    shutil.copytree(ROOT / "scripts" / "deploy", root / "scripts" / "deploy")
    for number in range(1, 15):
        folder = root / ".deployments" / "staging-compose" / f"{number:04}"
        folder.mkdir(parents=True)
        (folder / "state").write_text("good" if number == 1 else "failed")
    assert in_script(root, 'forget; present; newest; ls "$records"').splitlines() == [
        str(root / ".deployments/staging-compose/0001"),
        str(root / ".deployments/staging-compose/0014"),
        "0001",
        *(f"{number:04}" for number in range(5, 15)),
    ]
    assert beside.exists()


RESOLVED = """\
name: x
services:
  beat:
    image: a/beat:1
    depends_on:
      backend:
        condition: service_healthy
        required: false
      redis:
        condition: service_healthy
        required: false
    secrets:
      - source: key
        target: /run/secrets/key
    labels:
      a: b
  general:
    depends_on:
      redis:
        condition: service_healthy
    image: a/general:1
  redis:
    image: redis:8
secrets:
  backend:
    name: x_backend
    file: {file}
  key:
    name: x_key
    file: {file}
"""


def test_a_record_names_no_service_that_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "all.yml").write_text(RESOLVED)
    tidied = [yaml.safe_load(in_script(ROOT, f"tidy {tmp_path}/all.yml {kept}")) for kept in ("", "beat redis", "beat")]
    assert [list(one["services"]) for one in tidied] == [["beat", "general", "redis"], ["beat", "redis"], ["beat"]]
    assert [list(one["services"]["beat"].get("depends_on", {})) for one in tidied] == [["redis"], ["redis"], []]
    whole = yaml.safe_load(RESOLVED)
    assert tidied[0]["services"]["general"] == whole["services"]["general"]
    for one in tidied:
        assert one["services"]["beat"] | {"depends_on": ""} == whole["services"]["beat"] | {"depends_on": ""}
        assert one["secrets"] == whole["secrets"]


def test_a_service_is_labelled_by_the_files_of_its_secrets(tmp_path: Path) -> None:
    file = tmp_path / "a key"
    file.write_text("one")
    (tmp_path / "compose.yml").write_text(RESOLVED.format(file=file))
    first, other = (in_script(ROOT, f"secrets_of {tmp_path} {name}") for name in ("beat", "general"))
    assert in_script(ROOT, f"secrets_of {tmp_path} beat") == first != other
    file.write_text("another")
    assert in_script(ROOT, f"secrets_of {tmp_path} beat") != first
    assert in_script(ROOT, f"secrets_of {tmp_path} general") == other
