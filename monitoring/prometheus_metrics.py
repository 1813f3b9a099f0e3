"""Every metric, declared once. Labels are bounded: task, queue and outcome names, never ids.

Naming: https://prometheus.io/docs/practices/naming/
"""

from prometheus_client import Counter, Histogram

TASKS = Counter(
    "workers_tasks_total",
    "Task deliveries by how they ended: succeeded, failed, retried or handed_back.",
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
BACKEND_REQUESTS = Counter(
    "workers_backend_requests_total",
    "Requests sent to the internal API, each attempt counted, by route and by how it ended.",
    ["route", "outcome"],
)
