"""Settings: the whole configuration, from the environment, read once at start, frozen, secrets masked.

No pydantic here, so that a process that needs only its settings (the scheduler) stays light.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from config.workers import DRAIN_SECONDS
from shared.contradictions import contradictions
from shared.variables import (
    Network,
    Secret,
    SettingsError,
    addresses,
    api_address,
    api_key,
    broker_address,
    host,
    integer,
    logins,
    management_address,
    modules,
    networks,
    number,
    one_of,
    pem_file,
    read,
    signing_key,
    text,
    time_zone,
    var,
)

_SHORTEST_HIDDEN = 8


class Loaded:
    """What reads the environment into its own fields."""

    __slots__ = ()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Settings from the environment, or from the mapping given.

        A secret may stand in a file: `NAME_FILE` holds its path. Values are stripped; an empty one counts as unset.

        Raises:
            SettingsError: one line for every variable that is missing or wrong, with what was expected.
        """
        values: dict[str, Any] = {}
        mistakes: list[str] = []
        for spec in fields(cls):  # type: ignore[arg-type] # those who derive from this are dataclasses
            try:
                values[spec.name] = read(spec.metadata, environ)
            except SettingsError as mistake:
                mistakes.append(str(mistake))
        mistakes += contradictions(values)
        if mistakes:
            raise SettingsError("\n".join(mistakes))
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSettings(Loaded):
    """What every process of ours needs, and all that the scheduler does. Each field names its variable, its default and
    what it is.
    """

    environment: str = var(
        "ENVIRONMENT",
        one_of("production", "staging", "development"),
        "what a start refuses depends on it",
        "production",
    )
    log_level: str = var(
        "LOG_LEVEL",
        one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "the least severe lines that are logged",
        "INFO",
    )
    log_format: str = var(
        "LOG_FORMAT", one_of("auto", "json", "console"), "auto is console on a terminal, else json", "auto"
    )
    health_host: str = var("HEALTH_HOST", host, "the address that the health server listens on", "0.0.0.0")  # noqa: S104 # probes and scrapers come from other machines
    broker_url: Secret = var("CELERY_BROKER_URL", broker_address, "the message broker, RabbitMQ or Redis")
    queue_type: str = var(
        "CELERY_QUEUE_TYPE",
        one_of("classic", "quorum"),
        "how queues are declared on RabbitMQ; quorum only where every publisher agrees",
        "classic",
    )
    visibility: int = var(
        "BROKER_VISIBILITY_TIMEOUT",
        integer(5, 43_200),
        "seconds after which a Redis broker gives a held message to another worker",
        "600",
    )
    redis_host: str = var("CACHE_REDIS_HOST", host, "the state store, which the backend reads API results from")
    redis_port: int = var("CACHE_REDIS_PORT", integer(1, 65535), "its port", "6379")
    redis_db: int = var("CACHE_REDIS_DB", integer(0, 1_000_000), "its database", "0")
    redis_username: str = var("CACHE_REDIS_USERNAME", text, "its user", "", optional=True)
    redis_password: Secret = var("CACHE_REDIS_PASSWORD", Secret, "its password", "", optional=True)
    redis_sentinels: tuple[tuple[str, int], ...] = var(
        "CACHE_REDIS_SENTINELS",
        addresses,
        "host:port of the sentinels that know where it is now, if there are any",
        "",
        optional=True,
    )
    redis_sentinel_master: str = var("CACHE_REDIS_SENTINEL_MASTER", text, "its name among them", "mymaster")
    lease: float = var(
        "LEASE_SECONDS",
        number(1, 300),
        "seconds after which the work of a process that died is taken over; leases are renewed thrice in that time",
        "15",
    )
    schedule_timezone: str = var(
        "SCHEDULE_TIMEZONE", time_zone, "whose clock the crontabs of the schedule are read by", "UTC"
    )

    def secrets(self) -> list[Secret]:
        """Every secret that is set, and the broker's password by itself, unless it is as short as a common word."""
        held = (getattr(self, spec.name) for spec in fields(self))
        found = [value for value in held if isinstance(value, Secret) and value]
        password = urlsplit(self.broker_url.reveal()).password or ""
        return [*found, *(Secret(form) for form in {password, unquote(password)} if len(form) >= _SHORTEST_HIDDEN)]

    def hide(self, text: str) -> str:
        """That text without any of the secrets in it."""
        for secret in self.secrets():
            text = secret.hide(text)
        return text

    def describe(self) -> dict[str, str]:
        """Every variable with its effective value, secrets masked."""
        return {spec.metadata["name"]: str(getattr(self, spec.name)) for spec in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings(BaseSettings):
    """What the monitor needs."""

    monitor_interval: float = var(
        "MONITOR_INTERVAL_SECONDS", number(0.2, 300), "seconds between two rounds of the monitor", "5"
    )
    management_url: Secret | None = var(
        "RABBITMQ_MANAGEMENT_URL",
        management_address,
        "RabbitMQ's management API, with user and password, where there is one",
        optional=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerSettings(BaseSettings):
    """What Flower needs."""

    basic_auth: Secret = var("FLOWER_BASIC_AUTH", logins, "who may look at Flower's pages")


@dataclass(frozen=True, kw_only=True)  # no slots: Settings has them from its other base
class WorkflowSettings(Loaded):
    """What whoever runs workflows needs."""

    workflow_modules: tuple[str, ...] = var(
        "WORKFLOW_MODULES", modules, "modules that declare workflows, as Python imports them", "", optional=True
    )
    workflow_largest: int = var(
        "WORKFLOW_OUTPUT_MAX_BYTES",
        integer(1_024, 268_435_456),
        "the largest input or output of a workflow's step, in bytes",
        "8388608",
    )
    workflow_items: int = var(
        "WORKFLOW_MOST_ITEMS", integer(1, 1_000_000), "items of a list that a workflow's step may run over", "10000"
    )
    workflow_retention: int = var(
        "WORKFLOW_RETENTION_SECONDS",
        integer(60, 2_592_000),
        "seconds for which the results of a workflow's run are kept after its end",
        "86400",
    )


@dataclass(frozen=True, kw_only=True)
class ClientSettings(WorkflowSettings):
    """What whoever starts workflows needs, besides what their engine does."""

    engine: str = var(
        "TASK_QUEUE_BACKEND",
        one_of("local", "celery", "hatchet"),
        "what runs workflows: threads of the process that starts them, the workers, or Hatchet",
        "celery",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(BaseSettings, WorkflowSettings):
    """The whole configuration of a worker."""

    traces: str = var(
        "OTEL_TRACES_EXPORTER",
        one_of("none", "otlp", "console"),
        "where spans go; OpenTelemetry's SDK reads its other OTEL_ variables itself",
        "none",
    )
    backend_url: str = var("INTERNAL_API_BASE_URL", api_address, "the backend's internal API; ends in /internal")
    backend_key: Secret = var("INTERNAL_SERVICE_API_KEY", api_key, "the key to the internal API")
    backend_timeout: float = var(
        "INTERNAL_API_TIMEOUT", number(0.1, 300), "seconds for one request, all its attempts", "30"
    )
    backend_attempts: int = var("INTERNAL_API_RETRY_ATTEMPTS", integer(1, 10), "sends of one request in total", "3")
    backend_backoff: float = var(
        "INTERNAL_API_RETRY_BACKOFF_FACTOR",
        number(0, 30),
        "first wait between sends in seconds, doubled each time, full jitter",
        "1.0",
    )
    backend_connect: float = var(
        "INTERNAL_API_CONNECT_TIMEOUT", number(0.1, 60), "seconds to wait for a connection", "5"
    )
    backend_read: float = var(
        "INTERNAL_API_READ_TIMEOUT",
        number(0.1, 300),
        "seconds to wait for each answer about one row; other answers may take INTERNAL_API_TIMEOUT",
        "10",
    )
    backend_largest: int = var(
        "INTERNAL_API_MAX_RESPONSE_BYTES",
        integer(1_024, 1_073_741_824),
        "the largest answer that is read, in bytes",
        "33554432",
    )
    backend_slow_requests: int = var(
        "INTERNAL_API_SLOW_REQUESTS",
        integer(0, 1_000),
        "requests in flight at once that make the backend work long; 0: as many as the process has slots",
        "0",
    )
    backend_ca: str | None = var(
        "INTERNAL_API_CA_BUNDLE",
        pem_file,
        "certificates that may sign the backend's, instead of the public ones",
        optional=True,
    )
    backend_client_cert: str | None = var(
        "INTERNAL_API_CLIENT_CERT", pem_file, "our certificate, where the backend asks for one", optional=True
    )
    backend_client_key: str | None = var(
        "INTERNAL_API_CLIENT_KEY", pem_file, "its private key, if that is not in the same file", optional=True
    )
    breaker_failures: int = var(
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        integer(1, 1_000),
        "failures needed in the window before the rate counts",
        "5",
    )
    breaker_rate: float = var(
        "CIRCUIT_BREAKER_FAILURE_RATE",
        number(0.01, 1, ""),
        "share of failures among the requests of the window that opens the circuit",
        "0.5",
    )
    breaker_volume: int = var(
        "CIRCUIT_BREAKER_MINIMUM_VOLUME",
        integer(1, 1_000),
        "requests needed in the window before the rate counts; as many without any answer open it at once",
        "10",
    )
    breaker_window: float = var(
        "CIRCUIT_BREAKER_WINDOW", number(1, 600), "seconds over which requests are counted", "30"
    )
    breaker_recovery: float = var(
        "CIRCUIT_BREAKER_RECOVERY_TIMEOUT",
        number(0.1, 600),
        "seconds open before the probe, give or take a tenth",
        "60",
    )
    consumer_timeout: int = var(
        "BROKER_CONSUMER_TIMEOUT",
        integer(10, 86_400),
        "seconds after which RabbitMQ ends a consumer that holds a message: its own consumer_timeout",
        "1800",
    )
    drain: float = var(
        # RabbitMQ hears nothing from a process that drains, and takes one for dead after a minute.
        "DRAIN_SECONDS",
        number(0.5, 50),
        "seconds after SIGTERM in which the process ends, be it with force",
        str(DRAIN_SECONDS),
    )
    most_deliveries: int = var(
        "MAX_DELIVERIES",
        integer(1, 1_000),
        "deliveries of one piece of work that may end with its process before it is given up",
        "5",
    )
    stall: float = var(
        "STALL_SECONDS",
        number(1, 86_400),
        "seconds without progress after which the reaper looks after an execution",
        "600",
    )
    reaper_interval: float = var(
        "REAPER_INTERVAL_SECONDS", number(0.1, 3_600), "seconds between two rounds of the reaper", "60"
    )
    log_queue: str = var("LOG_HISTORY_QUEUE_NAME", text, "the Redis list of log records", "log_history_queue")
    webhook_networks: tuple[Network, ...] = var(
        "WEBHOOK_ALLOWED_NETWORKS",
        networks,
        "private networks that webhooks may go to all the same, such as 10.1.0.0/16",
        "",
        optional=True,
    )
    webhook_key: Secret = var(
        "WEBHOOK_SIGNING_KEY", signing_key, "signs webhooks (HMAC-SHA256), if it is set", "", optional=True
    )
    webhook_timeout: float = var(
        "WEBHOOK_TIMEOUT", number(0.1, 300), "the most seconds for one webhook, whatever its message says", "30"
    )
    max_parallel_batches: int = var(
        "MAX_PARALLEL_FILE_BATCHES",
        integer(1, 100),
        "batches of files per execution, where the backend has no value for the organization",
        "1",
    )
    batch_slice: float = var(
        "BATCH_SLICE_SECONDS",
        number(1, 600),
        "seconds after which a batch goes back to the tail of its queue",
        "60",
    )
    task_deadline: float = var(
        "TASK_DEADLINE_SECONDS",
        number(1, 3_600),
        "seconds one delivery of any other task may take",
        "300",
    )
    file_deadline: float = var("FILE_DEADLINE_SECONDS", number(1, 86_400), "seconds one file may take", "3600")
    execution_deadline: float = var(
        "EXECUTION_DEADLINE_SECONDS",
        number(1, 604_800),
        "seconds an execution may take; its state is kept an hour longer",
        "14400",
    )
