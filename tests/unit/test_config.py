"""The environment, read once: everything connected, every mistake named, no secret shown."""

from dataclasses import fields
from pathlib import Path

import pytest
import trustme

from shared.config import BaseSettings, Settings
from shared.variables import Secret, SettingsError
from tests.fakes import ENVIRONMENT, settings

KEY = "correct-horse-battery-staple"
OTHER = {
    "ENVIRONMENT": "staging",
    "LOG_LEVEL": "DEBUG",
    "LOG_FORMAT": "console",
    "HEALTH_HOST": "::1",
    "OTEL_TRACES_EXPORTER": "console",
    "INTERNAL_API_BASE_URL": "https://other.invalid/x/internal/",
    "INTERNAL_SERVICE_API_KEY": KEY,
    "INTERNAL_API_TIMEOUT": "12.5",
    "INTERNAL_API_RETRY_ATTEMPTS": "7",
    "INTERNAL_API_RETRY_BACKOFF_FACTOR": "0.25",
    "CELERY_BROKER_URL": "amqps://user:pass@rabbit.invalid//",
    "CACHE_REDIS_HOST": "other.invalid",
    "CACHE_REDIS_PORT": "6380",
    "CACHE_REDIS_DB": "3",
    "CACHE_REDIS_USERNAME": "worker",
    "CACHE_REDIS_PASSWORD": "p@ss/word",
    "INTERNAL_API_CONNECT_TIMEOUT": "2",
    "INTERNAL_API_READ_TIMEOUT": "7",
    "INTERNAL_API_MAX_RESPONSE_BYTES": "2048",
    "INTERNAL_API_SLOW_REQUESTS": "3",
    "CIRCUIT_BREAKER_FAILURE_THRESHOLD": "6",
    "CIRCUIT_BREAKER_FAILURE_RATE": "0.75",
    "CIRCUIT_BREAKER_MINIMUM_VOLUME": "20",
    "CIRCUIT_BREAKER_WINDOW": "15",
    "CIRCUIT_BREAKER_RECOVERY_TIMEOUT": "90",
    "TASK_DEADLINE_SECONDS": "120",
    "MAX_PARALLEL_FILE_BATCHES": "9",
    "BATCH_SLICE_SECONDS": "45",
    "FILE_DEADLINE_SECONDS": "100",
    "EXECUTION_DEADLINE_SECONDS": "200",
    "CELERY_QUEUE_TYPE": "quorum",
    "BROKER_VISIBILITY_TIMEOUT": "300",
    "BROKER_CONSUMER_TIMEOUT": "900",
    "DRAIN_SECONDS": "20",
    "SCHEDULE_TIMEZONE": "Europe/Berlin",
    "CACHE_REDIS_SENTINELS": "one.invalid:26379, two.invalid:26380",
    "CACHE_REDIS_SENTINEL_MASTER": "primary",
    "LEASE_SECONDS": "30",
    "MAX_DELIVERIES": "3",
    "STALL_SECONDS": "900",
    "REAPER_INTERVAL_SECONDS": "30",
    "LOG_HISTORY_QUEUE_NAME": "other_log_queue",
    "WEBHOOK_ALLOWED_NETWORKS": "10.1.0.0/16, fd00::/8",
    "WEBHOOK_SIGNING_KEY": "another-secret-key",
    "WEBHOOK_TIMEOUT": "5",
    "WORKFLOW_MODULES": "invoices.workflows, reports",
    "WORKFLOW_OUTPUT_MAX_BYTES": "65536",
    "WORKFLOW_MOST_ITEMS": "20",
    "WORKFLOW_RETENTION_SECONDS": "3600",
}


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, str]:
    """Files: an authority's certificate, one it has signed with its key, another's key, and what is none of these."""
    authority = trustme.CA()
    signed, another = authority.issue_cert("worker"), authority.issue_cert("another")
    authority.cert_pem.write_to_path(str(tmp_path / "authority"))
    signed.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate"))
    signed.private_key_pem.write_to_path(str(tmp_path / "key"))
    another.private_key_pem.write_to_path(str(tmp_path / "another"))
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    (tmp_path / "text").write_text("nonsense")
    return {path.name: str(path) for path in tmp_path.iterdir()}


def test_every_variable_changes_the_settings(pem: dict[str, str]) -> None:
    other = OTHER | {
        "INTERNAL_API_CA_BUNDLE": pem["authority"],
        "INTERNAL_API_CLIENT_CERT": pem["certificate"],
        "INTERNAL_API_CLIENT_KEY": pem["key"],
    }
    assert {spec.metadata["name"] for spec in fields(Settings)} == set(other)
    before, after = settings(), Settings.load(other)
    unchanged = [spec.name for spec in fields(Settings) if getattr(before, spec.name) == getattr(after, spec.name)]
    assert unchanged == []
    assert after.backend_url == "https://other.invalid/x/internal"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"CA_BUNDLE": "text"}, "INTERNAL_API_CA_BUNDLE must be the path of a readable PEM file"),
        ({"CA_BUNDLE": "absent"}, "INTERNAL_API_CA_BUNDLE must be the path of a readable PEM file"),
        ({"CA_BUNDLE": "broken"}, "INTERNAL_API_CA_BUNDLE must hold certificates"),
        ({"CLIENT_CERT": "certificate"}, "must belong together"),
        ({"CLIENT_CERT": "certificate", "CLIENT_KEY": "another"}, "must belong together"),
        ({"CLIENT_KEY": "key"}, "INTERNAL_API_CLIENT_KEY is set without INTERNAL_API_CLIENT_CERT"),
    ],
)
def test_certificates_that_cannot_be_used_stop_the_start(files: dict[str, str], said: str, pem: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(**{f"INTERNAL_API_{name}": pem.get(file, "/absent") for name, file in files.items()})


def test_all_mistakes_come_together_each_with_its_variable() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"LOG_LEVEL": "loud", "CACHE_REDIS_PORT": "70000", "INTERNAL_API_TIMEOUT": "nan"})
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        "LOG_LEVEL",
        "CELERY_BROKER_URL",
        "CACHE_REDIS_HOST",
        "CACHE_REDIS_PORT",
        "INTERNAL_API_BASE_URL",
        "INTERNAL_SERVICE_API_KEY",
        "INTERNAL_API_TIMEOUT",
    ]
    assert "one of DEBUG, INFO, WARNING, ERROR; 'loud' is not" in lines[0]
    assert "a whole number from 1 to 65535; '70000' is not" in lines[3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INTERNAL_API_BASE_URL", "http://backend/api"),
        ("INTERNAL_API_BASE_URL", "backend/internal"),
        ("INTERNAL_API_BASE_URL", "http://user:pass@backend/internal"),
        ("INTERNAL_API_BASE_URL", "http://:pass@backend/internal"),
        ("INTERNAL_API_BASE_URL", "http://backend\n/internal"),
        ("INTERNAL_API_BASE_URL", "http://back end/internal"),
        ("INTERNAL_API_BASE_URL", "http://backend:80a/internal"),
        ("INTERNAL_SERVICE_API_KEY", "one two"),
        ("CELERY_BROKER_URL", "redis://host/abc"),
        ("CELERY_BROKER_URL", "redis://host/-1"),
        ("CELERY_BROKER_URL", "amqp://guest:guest@rabbitmq:56 72//"),
        ("CELERY_BROKER_URL", "sqs://x"),
        ("CELERY_BROKER_URL", "filesystem://"),
        ("MAX_PARALLEL_FILE_BATCHES", "0"),
        ("MAX_PARALLEL_FILE_BATCHES", "2.5"),
        ("BATCH_SLICE_SECONDS", "inf"),
        ("ENVIRONMENT", "prod"),
        # Quotes are for a shell; Docker's environment files hand them on.
        ("ENVIRONMENT", '"production"'),
        ("INTERNAL_API_TIMEOUT", "'5'"),
        ("INTERNAL_API_TIMEOUT", "false "),
        ("INTERNAL_API_TIMEOUT", "5,5"),
        ("CACHE_REDIS_PORT", '"6379"'),
        ("CACHE_REDIS_HOST", '"redis"'),
        ("CACHE_REDIS_HOST", "redis:6379"),
        ("CACHE_REDIS_HOST", "redis://redis"),
        ("CELERY_BROKER_URL", '"redis://host/0"'),
        ("INTERNAL_API_BASE_URL", '"http://backend/internal"'),
        ("SCHEDULE_TIMEZONE", "Europe/Atlantis"),
        ("SCHEDULE_TIMEZONE", "Europe"),
        ("SCHEDULE_TIMEZONE", "../UTC"),
    ],
)
def test_wrong_values_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} must be"):
        settings(**{name: value})


def test_blanks_are_stripped_and_empty_counts_as_unset() -> None:
    found = settings(INTERNAL_API_TIMEOUT=" 5 ", LOG_LEVEL="", CACHE_REDIS_PASSWORD=" ")
    assert (found.backend_timeout, found.log_level, bool(found.redis_password)) == (5.0, "INFO", False)


@pytest.mark.parametrize("key", ["changeme", "ChangeMe", "short-key", "dev-internal-key-123"])
def test_a_weak_key_stops_a_production_start(key: str) -> None:
    with pytest.raises(SettingsError, match="set a random one") as caught:
        settings(ENVIRONMENT="production", INTERNAL_SERVICE_API_KEY=key)
    assert key not in str(caught.value)
    assert settings(ENVIRONMENT="development", INTERNAL_SERVICE_API_KEY=key).backend_key.reveal() == key


def test_the_scheduler_needs_broker_and_store_alone() -> None:
    needed = {"CELERY_BROKER_URL": "amqp://broker.invalid//", "CACHE_REDIS_HOST": "state.invalid"}
    assert BaseSettings.load(needed).schedule_timezone == "UTC"
    with pytest.raises(SettingsError) as caught:
        BaseSettings.load({"SCHEDULE_TIMEZONE": "Mars"})
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [*needed, "SCHEDULE_TIMEZONE"]


def test_production_is_what_counts_when_nobody_says() -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "ENVIRONMENT"}
    with pytest.raises(SettingsError, match="INTERNAL_SERVICE_API_KEY is a well-known key or shorter"):
        Settings.load(environment)


def test_times_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(
        SettingsError, match="INTERNAL_API_TIMEOUT must be below BATCH_SLICE_SECONDS: 60 is not below 60"
    ):
        settings(INTERNAL_API_TIMEOUT="60")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"BATCH_SLICE_SECONDS": "560"}, "together must be below BROKER_VISIBILITY_TIMEOUT, .* 600 is not below 600"),
        ({"TASK_DEADLINE_SECONDS": "600"}, "TASK_DEADLINE_SECONDS must be below BROKER_VISIBILITY_TIMEOUT"),
        ({"BROKER_VISIBILITY_TIMEOUT": "90"}, "together must be below BROKER_VISIBILITY_TIMEOUT"),
        (
            {"CELERY_BROKER_URL": "amqp://b//", "BROKER_CONSUMER_TIMEOUT": "60"},
            "together must be below BROKER_CONSUMER_TIMEOUT",
        ),
    ],
)
def test_no_message_may_be_held_longer_than_the_broker_lets_it(variables: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(**variables)


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "INTERNAL_SERVICE_API_KEY"}
    found = Settings.load(environment | {"INTERNAL_SERVICE_API_KEY_FILE": str(tmp_path / "key")})
    assert found.backend_key == Secret(KEY)
    with pytest.raises(SettingsError, match=r"^INTERNAL_SERVICE_API_KEY_FILE must be the path of a readable.*No such"):
        Settings.load(environment | {"INTERNAL_SERVICE_API_KEY_FILE": str(tmp_path / "none")})


def test_a_secret_where_its_path_belongs_is_not_shown() -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "INTERNAL_SERVICE_API_KEY"}
    for slip in (KEY, f"{KEY}\0"):
        with pytest.raises(SettingsError, match="readable file") as caught:
            Settings.load(environment | {"INTERNAL_SERVICE_API_KEY_FILE": slip})
        assert KEY not in str(caught.value)


def test_a_broker_is_known_by_its_scheme_however_it_is_written() -> None:
    assert settings(CELERY_BROKER_URL="REDIS://host/2").broker_url.reveal() == "redis://host/2"


def test_a_signing_key_in_base64_is_base64_and_is_not_shown() -> None:
    assert settings(WEBHOOK_SIGNING_KEY="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").webhook_key
    with pytest.raises(SettingsError, match=r"WEBHOOK_SIGNING_KEY must be .*base64") as caught:
        settings(WEBHOOK_SIGNING_KEY="whsec_not/base64!")
    assert "not/base64" not in str(caught.value)


def test_no_secret_shows_itself() -> None:
    found = Settings.load(OTHER)
    shown = f"{found!r} {found} {found.describe()}"
    for secret in (KEY, "user:pass", "p@ss"):
        assert secret not in shown
    for name in ("CELERY_BROKER_URL", "INTERNAL_API_BASE_URL"):
        with pytest.raises(SettingsError, match=name) as caught:
            settings(**{name: "ftp://user:hidden@x/internal"})
        assert "hidden" not in str(caught.value)
