"""Every metric, declared once. Labels are bounded: names of tasks, queues, routes, groups and outcomes, never ids.

Naming: https://prometheus.io/docs/practices/naming/, but for what public dashboards for Celery read (Grafana 17508 and
17509): that has their names, and no other.
"""

from functools import partial

from monitoring.registry import NODE, Labels, Metric

_counter, _gauge, _histogram = (partial(Metric, kind) for kind in ("counter", "gauge", "histogram"))

# Seconds. From what a no-op takes to what a slice and a request may, and to what a queue may be behind.
_WORK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_WAIT = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_EXECUTION = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
# By their number in the gauge.
CIRCUIT_STATES = ("closed", "half_open", "open")
_GROUPS = ("records", "bulk", "tools")
_TASK: Labels = {"name": (), NODE: (), "queue_name": ()}

TASK_SENT = _counter(
    "celery_task_sent_total", "Messages that this process sent, hand-backs and retries among them.", _TASK
)
TASK_RECEIVED = _counter("celery_task_received_total", "Messages taken from the broker.", _TASK)
TASK_STARTED = _counter("celery_task_started_total", "Deliveries that began to run.", _TASK)
TASK_SUCCEEDED = _counter("celery_task_succeeded_total", "Deliveries whose work was done.", _TASK)
TASK_FAILED = _counter(
    "celery_task_failed_total",
    "Deliveries that failed for good, by the class of the error. What is folded from them has come to its end.",
    {**_TASK, "exception": ()},
)
TASK_RETRIED = _counter("celery_task_retried_total", "Deliveries that are tried again after a wait.", _TASK)
TASK_REJECTED = _counter(
    "celery_task_rejected_total",
    "Deliveries that the broker is to give out again, since no message could be sent.",
    _TASK,
)
TASK_REVOKED = _counter(
    "celery_task_revoked_total", "Messages that an operator revoked, or whose time was over.", _TASK
)
TASK_HANDED_BACK = _counter(
    "workers_task_handed_back_total", "Deliveries that went to the tail of their queue, to go on there.", _TASK
)
TASK_DUPLICATE = _counter(
    "workers_task_duplicate_total", "Deliveries whose work another delivery had done already.", _TASK
)
TASK_RUNTIME = _histogram("celery_task_runtime", "Seconds for which a delivery held its slot.", _TASK, buckets=_WORK)
TASK_QUEUE_WAIT = _histogram(
    "celery_task_queue_wait_time",
    "Seconds from when a message could first be taken until its delivery began, where the message carries a time.",
    _TASK,
    buckets=_WAIT,
)
MESSAGES_DROPPED = _counter(
    "workers_messages_dropped_total",
    "Messages that no task will finish. Kept in workers_dead_letters: failed (for good, nothing is folded from it), "
    "unknown_task, not_a_task, invalid, unreadable, protocol. Gone: revoked, or unfinished, which could not be kept.",
    {
        **_TASK,
        "reason": (
            "failed",
            "unfinished",
            "revoked",
            "unknown_task",
            "not_a_task",
            "invalid",
            "unreadable",
            "protocol",
        ),
    },
)
MESSAGES_FORWARDED = _counter(
    "workers_messages_forwarded_total",
    "Messages that reached a process which does not serve their kind of execution, and were sent on.",
    {"name": (), "queue_name": ()},
)
POOL_SLOTS = _gauge("workers_pool_slots", "Tasks that this process can run at once.", {NODE: ()})
POOL_SLOTS_BUSY = _gauge("workers_pool_slots_busy", "Tasks that this process runs now.", {NODE: ()})

FILES = _counter(
    "workers_files_total",
    "Files by how they ended: succeeded, failed, skipped or stopped.",
    {"outcome": ("succeeded", "failed", "skipped", "stopped")},
)
PAGES = _counter("workers_pages_total", "Pages of files that succeeded, as the backend's tools count them.")
BATCHES = _counter(
    "workers_batches_total",
    "Batches by what their files came to: succeeded (all), partial, failed or empty.",
    {"outcome": ("succeeded", "partial", "failed", "empty")},
)
EXECUTIONS = _counter(
    "workers_executions_total", "Executions by their terminal status.", {"status": ("COMPLETED", "ERROR", "STOPPED")}
)
EXECUTION_SECONDS = _histogram(
    "workers_execution_duration_seconds",
    "Seconds from when the backend created an execution until its end was written, by its kind: api or pipeline.",
    {"kind": ("api", "pipeline"), "status": ("COMPLETED", "ERROR", "STOPPED")},
    buckets=_EXECUTION,
)
EXECUTIONS_DROPPED = _counter(
    "workers_executions_dropped_total",
    "Executions of which the state store knew nothing any more when they were looked after: "
    "workers check --orphans hands them over.",
)
REAPED = _counter(
    "workers_reaper_actions_total",
    "Executions that the reaper looked after, by what it did: alive, waited, batches_sent, callback_sent, ended, "
    "struck_off or failed.",
    {"action": ("alive", "waited", "batches_sent", "callback_sent", "ended", "struck_off", "failed")},
)

NOTIFICATIONS = _counter(
    "workers_notifications_total",
    "Webhooks that were to be told of an execution's end: enqueued at the backend, or sent from here.",
    {"outcome": ("enqueued", "sent")},
)
NOTIFICATIONS_REPEATED = _counter(
    "workers_notifications_repeated_total", "Webhooks that may have been told twice, since a process died meanwhile."
)
NOTIFICATIONS_DROPPED = _counter(
    "workers_notifications_dropped_total",
    "Webhooks that are not told of an execution's end: refused by the backend, or given up after several deaths.",
    {"reason": ("refused", "deaths")},
)
WEBHOOKS = _counter(
    "workers_webhooks_total",
    "Sends of webhooks: delivered, or retried for one that is tried again.",
    {"outcome": ("delivered", "retried")},
)
WEBHOOKS_DROPPED = _counter(
    "workers_webhooks_dropped_total",
    "Webhooks that were given up, and whose messages are kept: refused (their address), rejected (by the receiver), "
    "exhausted (their retries) or failed (anything else).",
    {"reason": ("refused", "rejected", "exhausted", "failed")},
)
WEBHOOK_MARKS_DROPPED = _counter(
    "workers_webhook_marks_dropped_total",
    "Words on what became of a webhook that neither reached the backend nor could be sent later.",
)
LOG_RECORDS = _counter(
    "workers_log_records_total",
    "Lines of the logs of executions: recorded, repeated (recorded before) or passed (shown only).",
    {"outcome": ("recorded", "repeated", "passed")},
)
LOG_EMISSIONS_DROPPED = _counter(
    "workers_log_emissions_dropped_total",
    "Log lines that those who watched were not shown; they are recorded all the same.",
)
LOG_LINES_DROPPED = _counter(
    "workers_log_lines_dropped_total", "Lines of this process's own log that could not be written."
)
HISTORIES_DROPPED = _counter(
    "workers_file_histories_dropped_total",
    "Files whose result the history did not take, by why: refused or without_hash. "
    "Their tools run again the next time.",
    {"reason": ("refused", "without_hash")},
)

WORKFLOW_RUNS = _counter(
    "workers_workflow_runs_total",
    "Runs of workflows by how they ended: succeeded, failed or cancelled.",
    {"workflow": (), "status": ("succeeded", "failed", "cancelled")},
)
WORKFLOW_RUN_SECONDS = _histogram(
    "workers_workflow_run_duration_seconds",
    "Seconds from the start of a workflow's run until its end.",
    {"workflow": (), "status": ("succeeded", "failed", "cancelled")},
    buckets=_EXECUTION,
)
WORKFLOW_STEPS = _counter(
    "workers_workflow_steps_total",
    "Steps of workflows by what they came to, and attempts that are made again (retrying).",
    {"workflow": (), "step": (), "outcome": ("succeeded", "failed", "skipped", "not_run", "retrying")},
)
WORKFLOW_STEP_SECONDS = _histogram(
    "workers_workflow_step_duration_seconds",
    "Seconds that one attempt at a step of a workflow took.",
    {"workflow": (), "step": ()},
    buckets=_WORK,
)

BACKEND_REQUESTS = _counter(
    "workers_backend_requests_total",
    "Requests to the internal API, each attempt counted, by route, status class (2xx, 4xx, …, or none) and outcome: "
    "ok, refused, busy, failed, unreachable, unfinished (we gave it up), or circuit_open for one that was not sent.",
    {"route": (), "status": (), "outcome": ()},
)
BACKEND_SECONDS = _histogram(
    "workers_backend_request_duration_seconds",
    "Seconds of one attempt at the internal API, answered or not.",
    {"route": ()},
    buckets=_REQUEST,
)
BACKEND_RETRIES = _counter(
    "workers_backend_retries_total", "Attempts at the internal API after the first.", {"route": ()}
)
BACKEND_HELD = _counter(
    "workers_backend_requests_held_total",
    "Requests that waited in this process before they were sent: for room in the bulkhead, or for a pause that the "
    "backend asked for.",
    {"group": _GROUPS, "reason": ("room", "pause")},
)
CIRCUIT_STATE = _gauge(
    "workers_circuit_breaker_state",
    "State of the circuit by group of routes: 0 closed, 1 half open, 2 open; of several processes the worst.",
    {"group": _GROUPS},
)
CIRCUIT_CHANGES = _counter(
    "workers_circuit_breaker_transitions_total",
    "Changes of a circuit, by the state it changed to.",
    {"group": _GROUPS, "state": CIRCUIT_STATES},
)

HEARTBEAT = _gauge(
    "workers_loop_heartbeat_age_seconds",
    "Seconds since the loop that takes messages was last seen to go round.",
    {NODE: ()},
)
CHECKS = _gauge(
    "workers_check_ok", "Whether what this process needs answered when it was last asked: 1 or 0.", {"check": ()}
)
CPU = _counter("process_cpu_seconds_total", "Processor time of this process and its children, in seconds.")
MEMORY = _gauge("process_resident_memory_bytes", "Resident memory of this process and its children.")
MEMORY_SHARE = _gauge(
    "workers_memory_limit_ratio",
    "Share of its memory limit that the container uses, from 0 to 1; of the machine's memory where it has no limit.",
)
THREADS = _gauge("process_threads", "Threads of this process and its children.")
DESCRIPTORS = _gauge("process_open_fds", "Open file descriptors of this process and its children.")
MOST_DESCRIPTORS = _gauge("process_max_fds", "Descriptors that this process may have open.")
STARTED = _gauge("process_start_time_seconds", "When this process started, in seconds since the epoch.")
BUILD = _gauge(
    "workers_build_info", "Always 1; what runs.", dict.fromkeys(("version", "profile", "pool", "celery", "python"), ())
)

QUEUE_LENGTH = _gauge("celery_queue_length", "Messages that wait in a queue.", {"queue_name": ()})
QUEUE_UNACKNOWLEDGED = _gauge(
    "workers_queue_unacknowledged",
    "Messages that workers have taken and not finished; missing where the broker does not say.",
    {"queue_name": ()},
)
QUEUE_STANDSTILL = _gauge(
    "workers_queue_standstill_seconds",
    "Seconds since a queue was last seen to move, or to be empty.",
    {"queue_name": ()},
)
QUEUE_CONSUMERS = _gauge("celery_active_consumer_count", "Consumers of a queue.", {"queue_name": ()})
WORKER_UP = _gauge("celery_worker_up", "Whether a worker answers: 1, or 0 for an hour after it last did.", {NODE: ()})
WORKER_TASKS = _gauge("celery_worker_tasks_active", "Tasks that a worker runs now.", {NODE: ()})
EXECUTIONS_OPEN = _gauge("workers_executions_open", "Executions that have started and not ended: open fan-ins.")
EXECUTIONS_OVERDUE = _gauge(
    "workers_executions_overdue", "Open executions that the reaper should have looked after more than five minutes ago."
)
BEAT_TICK = _gauge(
    "workers_beat_last_tick_timestamp_seconds",
    "When the scheduler last looked for what is due, in seconds since the epoch.",
)
MONITOR_ASKED = _gauge(
    "workers_monitor_source_ok",
    "Whether a source of the monitor answered when it was last asked: broker, management, workers, state_store.",
    {"source": ("broker", "management", "workers", "state_store")},
)
