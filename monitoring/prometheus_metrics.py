"""Every metric, declared once. Labels are bounded: task, queue, route, group and outcome names, never ids.

Naming: https://prometheus.io/docs/practices/naming/
"""

from prometheus_client import Counter, Gauge, Histogram

TASKS = Counter(
    "workers_tasks_total",
    "Task deliveries by how they ended: succeeded, failed, retried, handed_back, duplicate, "
    "or unfinished: failed, and its end could not be brought about.",
    ["task", "queue", "outcome"],
)
TASK_SECONDS = Histogram(
    "workers_task_duration_seconds",
    "How long a task held its slot.",
    ["task"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
MESSAGES_FORWARDED = Counter(
    "workers_messages_forwarded_total",
    "Messages that reached a process which does not serve their kind of execution, and were sent on.",
    ["task", "queue"],
)
FILES = Counter("workers_files_total", "Files by how they ended: succeeded, failed or skipped.", ["outcome"])
EXECUTIONS = Counter("workers_executions_total", "Executions by their terminal status.", ["status"])
REAPED = Counter(
    "workers_reaper_executions_total",
    "Executions that the reaper looked after, by what it did: alive, waited, batches_sent, callback_sent, ended, "
    "struck_off or failed.",
    ["action"],
)
NOTIFICATIONS = Counter(
    "workers_notifications_total",
    "Webhooks that were to be told of an execution's end: enqueued at the backend, sent from here, or dropped.",
    ["outcome"],
)
NOTIFICATIONS_REPEATED = Counter(
    "workers_notifications_repeated_total", "Webhooks that may have been told twice, since a process died meanwhile."
)
BACKEND_REQUESTS = Counter(
    "workers_backend_requests_total",
    "Requests sent to the internal API, each attempt counted, by route and by how it ended: 2xx, 4xx, …, no_answer, "
    "or circuit_open for one that was not sent.",
    ["route", "outcome"],
)
BACKEND_SECONDS = Histogram(
    "workers_backend_request_duration_seconds",
    "How long one attempt at the internal API took, answered or not.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BACKEND_RETRIES = Counter("workers_backend_retries_total", "Attempts at the internal API after the first.", ["route"])
BACKEND_HELD = Counter(
    "workers_backend_requests_held_total",
    "Requests that waited in this process before they were sent: for room in the bulkhead, or for a pause that the "
    "backend asked for.",
    ["group", "reason"],
)
CIRCUIT_STATE = Gauge(
    "workers_circuit_breaker_state",
    "State of the circuit by group of routes: 0 closed, 1 half open, 2 open.",
    ["group"],
)
CIRCUIT_CHANGES = Counter(
    "workers_circuit_breaker_transitions_total", "Changes of a circuit, by the state it changed to.", ["group", "state"]
)
WEBHOOKS = Counter(
    "workers_webhooks_total",
    "Sends of webhooks by how they ended: delivered, or retried for one that will be tried again.",
    ["outcome"],
)
WEBHOOKS_DROPPED = Counter(
    "workers_webhooks_dropped_total",
    "Webhooks that were given up, and whose messages are kept: refused (their address), rejected (by the receiver), "
    "exhausted (their retries) or failed (anything else).",
    ["reason"],
)
WEBHOOK_MARKS_DROPPED = Counter(
    "workers_webhook_marks_dropped_total",
    "Words on what became of a webhook that neither reached the backend nor could be sent later.",
)
LOG_RECORDS = Counter(
    "workers_log_records_total",
    "Messages of logs: recorded, repeated (recorded before) or passed (shown only).",
    ["outcome"],
)
LOG_EMISSIONS_DROPPED = Counter(
    "workers_log_emissions_dropped_total",
    "Log lines that those who watched were not shown; they are recorded all the same.",
)
