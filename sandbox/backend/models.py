"""The tables: what the platform knows of organizations, workflows, executions and files.

Names and types follow what the internal API shows. The sandbox's own are the API keys on a deployment, `ToolRun`,
`BufferRow.published_at`, the `incremented_*` counters, `Hook`, `HookDelivery` and `Emission`.
"""

from __future__ import annotations

import uuid

from django.db import models

PENDING = "PENDING"
EXECUTING = "EXECUTING"
COMPLETED = "COMPLETED"
STOPPED = "STOPPED"
ERROR = "ERROR"
STATUSES = (PENDING, EXECUTING, COMPLETED, STOPPED, ERROR)
TERMINAL = (COMPLETED, STOPPED, ERROR)
ACTIVE = (PENDING, EXECUTING)


class Timed(models.Model):  # type: ignore[misc]
    """A row with an UUID and the two times every answer shows."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    created_at = models.DateTimeField(auto_now_add=True)
    modified_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class Organization(models.Model):  # type: ignore[misc]
    """A tenant: `id` is the numeric key, `organization_id` the string one; both are accepted as header."""

    organization_id = models.CharField(max_length=255, unique=True)
    display_name = models.CharField(max_length=255)
    created_at = models.DateTimeField(auto_now_add=True)


class Configuration(models.Model):  # type: ignore[misc]
    """An organization's own value for one of the configuration keys."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    key = models.CharField(max_length=255)
    value = models.JSONField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["organization", "key"], name="one_value_per_key"),)


class Workflow(Timed):
    """`workflow_type` is API, ETL or TASK."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    name = models.CharField(max_length=255)
    workflow_type = models.CharField(max_length=16)
    description = models.TextField(default="")

    def ends(self) -> dict[str, Endpoint]:
        """`{"SOURCE": row, "DESTINATION": row}`."""
        return {row.endpoint_type: row for row in self.endpoints.all()}


class Endpoint(models.Model):  # type: ignore[misc]
    """The source or the destination of a workflow; `connector` is null for API workflows.

    `folder` is where a file-system source really reads; the connector's settings only say what a client is shown.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    workflow = models.ForeignKey(Workflow, models.CASCADE, related_name="endpoints")
    endpoint_type = models.CharField(max_length=16)
    connection_type = models.CharField(max_length=16)
    configuration = models.JSONField(default=dict)
    connector = models.JSONField(null=True)
    folder = models.TextField(null=True)


class ToolInstance(models.Model):  # type: ignore[misc]
    """A step of a workflow; `valid=False` makes its validation answer 422."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    workflow = models.ForeignKey(Workflow, models.CASCADE)
    tool_id = models.CharField(max_length=255)
    step = models.PositiveIntegerField(default=1)
    version = models.CharField(max_length=32)
    metadata = models.JSONField(default=dict)
    valid = models.BooleanField(default=True)


class Pipeline(Timed):
    """An ETL or TASK workflow that can be scheduled."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    workflow = models.ForeignKey(Workflow, models.CASCADE)
    name = models.CharField(max_length=255)
    pipeline_type = models.CharField(max_length=16)
    active = models.BooleanField(default=True)
    scheduled = models.BooleanField(default=True)
    cron_string = models.CharField(max_length=64, null=True)
    last_run_time = models.DateTimeField(null=True)
    last_run_status = models.CharField(max_length=32, default="YET_TO_START")
    api_key = models.UUIDField(default=uuid.uuid4)


class ApiDeployment(Timed):
    """A workflow behind a public URL."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    workflow = models.ForeignKey(Workflow, models.CASCADE)
    display_name = models.CharField(max_length=255)
    api_name = models.CharField(max_length=255)
    description = models.TextField(default="")
    is_active = models.BooleanField(default=True)
    api_key = models.UUIDField(default=uuid.uuid4)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["organization", "api_name"], name="one_api_of_a_name"),)


class Execution(Timed):
    """A workflow execution. `pipeline_id` is a pipeline's or an API deployment's, so it is no foreign key."""

    workflow = models.ForeignKey(Workflow, models.CASCADE)
    pipeline_id = models.UUIDField(null=True)
    task_id = models.UUIDField(null=True)
    execution_mode = models.CharField(max_length=16, default="QUEUE")
    execution_method = models.CharField(max_length=16, default="DIRECT")
    execution_type = models.CharField(max_length=16, default="COMPLETE")
    execution_log_id = models.CharField(max_length=255)
    status = models.CharField(max_length=32, default=PENDING)
    result_acknowledged = models.BooleanField(default=False)
    total_files = models.PositiveIntegerField(default=0)
    successful_files = models.PositiveIntegerField(null=True)
    failed_files = models.PositiveIntegerField(null=True)
    error_message = models.CharField(max_length=256, default="")
    attempts = models.PositiveIntegerField(default=0)
    execution_time = models.FloatField(default=0.0)
    tags = models.JSONField(default=list)
    # Set: the row has the terminal guard and answers `skipped`. Null: it has none, as most rows of the real one.
    queue_message_id = models.BigIntegerField(null=True)
    incremented_completed = models.PositiveIntegerField(default=0)
    incremented_failed = models.PositiveIntegerField(default=0)

    class Meta:
        indexes = (models.Index(fields=["workflow", "status"], name="execution_by_status"),)


class FileExecution(Timed):
    """One file of an execution. A new row's status is the empty string; files of API deployments have no path."""

    execution = models.ForeignKey(Execution, models.CASCADE, related_name="files")
    file_name = models.CharField(max_length=255, default="")
    file_path = models.CharField(max_length=1000, null=True)
    file_size = models.BigIntegerField(null=True)
    file_hash = models.CharField(max_length=64, null=True)
    provider_file_uuid = models.CharField(max_length=255, null=True)
    mime_type = models.CharField(max_length=255, null=True)
    fs_metadata = models.JSONField(null=True)
    status = models.CharField(max_length=32, default="")
    execution_error = models.TextField(null=True)
    execution_time = models.FloatField(null=True)
    result = models.JSONField(null=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["execution", "file_hash", "file_path"], name="unique_workflow_file_hash_path"
            ),
            models.UniqueConstraint(
                fields=["execution", "provider_file_uuid", "file_path"], name="unique_workflow_provider_uuid_path"
            ),
            # NULL differs from NULL in the constraints above, so rows without a path need their own.
            models.UniqueConstraint(
                fields=["execution", "file_hash", "file_name"],
                condition=models.Q(file_path__isnull=True),
                name="unique_workflow_file_hash_name",
            ),
        )


class FileHistory(Timed):
    """What a file gave the last time."""

    workflow = models.ForeignKey(Workflow, models.CASCADE)
    cache_key = models.CharField(max_length=255)
    provider_file_uuid = models.CharField(max_length=255, null=True)
    file_path = models.CharField(max_length=1000, null=True)
    is_api = models.BooleanField(default=False)
    status = models.CharField(max_length=32)
    execution_count = models.PositiveIntegerField(default=1)
    result = models.TextField(default="")
    metadata = models.TextField(default="")
    error = models.TextField(default="")

    class Meta:
        indexes = (
            models.Index(fields=["workflow", "cache_key"], name="history_by_key"),
            models.Index(fields=["workflow", "provider_file_uuid"], name="history_by_uuid"),
        )


class Usage(models.Model):  # type: ignore[misc]
    """Tokens and pages a tool used; `run_id` is the file execution."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    execution_id = models.UUIDField(null=True, db_index=True)
    run_id = models.UUIDField(null=True, db_index=True)
    embedding_tokens = models.IntegerField(default=0)
    prompt_tokens = models.IntegerField(default=0)
    completion_tokens = models.IntegerField(default=0)
    total_tokens = models.IntegerField(default=0)
    cost_in_dollars = models.FloatField(default=0.0)


class Notification(Timed):
    """A webhook of a pipeline or of an API deployment."""

    pipeline = models.ForeignKey(Pipeline, models.CASCADE, null=True)
    api = models.ForeignKey(ApiDeployment, models.CASCADE, null=True)
    notification_type = models.CharField(max_length=16, default="WEBHOOK")
    platform = models.CharField(max_length=16, default="API")
    url = models.CharField(max_length=2000)
    authorization_type = models.CharField(max_length=16, default="NONE")
    authorization_key = models.TextField(null=True)
    authorization_header = models.CharField(max_length=255, null=True)
    max_retries = models.PositiveIntegerField(default=0)
    is_active = models.BooleanField(default=True)
    notify_on_failures = models.BooleanField(default=False)


class BufferRow(Timed):
    """An event that waits to be sent. Nothing keeps the same event from being enqueued twice: it is counted."""

    notification = models.ForeignKey(Notification, models.CASCADE)
    organization = models.ForeignKey(Organization, models.CASCADE)
    execution_id = models.UUIDField(null=True)
    payload = models.JSONField()
    state = models.CharField(max_length=16, default=PENDING, db_index=True)
    due_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)


class Hook(models.Model):  # type: ignore[misc]
    """A receiver of webhooks and how it answers; with `failures`, so often so, and 200 from then on."""

    name = models.CharField(max_length=255, primary_key=True)
    status = models.PositiveIntegerField(default=200)
    delay_seconds = models.FloatField(default=0.0)
    location = models.TextField(default="")
    retry_after = models.CharField(max_length=64, default="")
    failures = models.PositiveIntegerField(null=True)


class HookDelivery(models.Model):  # type: ignore[misc]
    """A webhook as it came, and the status it was answered with."""

    name = models.CharField(max_length=255)
    method = models.CharField(max_length=16)
    headers = models.JSONField(default=dict)
    body = models.TextField()
    key = models.CharField(max_length=255, default="")
    status = models.PositiveIntegerField()
    at = models.DateTimeField(auto_now_add=True, db_index=True)


class Emission(models.Model):  # type: ignore[misc]
    """Something that was shown to a room."""

    room = models.CharField(max_length=255)
    event = models.CharField(max_length=255)
    data = models.JSONField(null=True)
    at = models.DateTimeField(auto_now_add=True, db_index=True)


class ToolRun(models.Model):  # type: ignore[misc]
    """The claim on running the tools for one file: one row, so one run.

    `runs` counts how often the tools were started, `restarts` how often because the backend's own process had died
    while they ran, which is nobody else's fault.
    """

    file_execution = models.OneToOneField(FileExecution, models.CASCADE, primary_key=True, related_name="tool_run")
    state = models.CharField(max_length=16)
    instance = models.CharField(max_length=64)
    runs = models.PositiveIntegerField(default=1)
    restarts = models.PositiveIntegerField(default=0)
    result = models.JSONField(null=True)
    error = models.TextField(null=True)
    metadata = models.JSONField(default=dict)
    execution_time = models.FloatField(null=True)
    started_at = models.DateTimeField()


class LogRecord(models.Model):  # type: ignore[misc]
    """A log line that `process-log-history` moved from Redis."""

    execution = models.ForeignKey(Execution, models.CASCADE)
    event_time = models.CharField(max_length=64)
    data = models.JSONField()
