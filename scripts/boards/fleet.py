"""The first dashboard to open: is the fleet well, and what waits."""

from config.queue_routing import DEAD_LETTERS
from monitoring import prometheus_metrics as metrics
from scripts.boards.panels import Board, Panel, increase, quantile, quantiles, rate, series

_NONE_IS_GOOD = ((None, "green"), (1, "red"))
_ONE_IS_GOOD = ((None, "red"), (1, "green"))
_DEAD_LETTERS = f'queue_name="{DEAD_LETTERS}"'

_WELL = (
    Panel(
        title="Processes that answer",
        about="Targets that Prometheus can read, of those it knows.",
        queries={"up": f"sum({series('up')})", "known": f"count({series('up')})"},
        width=4,
        kind="stat",
    ),
    Panel(
        title="Alerts",
        about="Alerts that fire, of every rule in this Prometheus.",
        queries={"firing": 'count(ALERTS{alertstate="firing"}) or vector(0)'},
        width=4,
        kind="stat",
        steps=_NONE_IS_GOOD,
    ),
    Panel(
        title="What workers need",
        about="1 if it answers every process that asked.",
        queries={"{{check}}": f"min by (check) ({series(metrics.CHECKS)})"},
        width=4,
        kind="stat",
        steps=_ONE_IS_GOOD,
    ),
    Panel(
        title="What the monitor asks",
        about="1 if it answers. What a silent source would say is missing below.",
        queries={"{{source}}": f"min by (source) ({series(metrics.MONITOR_ASKED)})"},
        width=4,
        kind="stat",
        steps=_ONE_IS_GOOD,
    ),
    Panel(
        title="Circuits to the backend",
        about="0 closed, 1 half open, 2 open; the worst of all processes.",
        queries={"{{group}}": f"max by (group) ({series(metrics.CIRCUIT_STATE)})"},
        width=4,
        kind="stat",
        steps=((None, "green"), (1, "orange"), (2, "red")),
    ),
    Panel(
        title="Dead letters",
        about="Messages that no task could take, kept for people. On RabbitMQ there is no such queue before the first.",
        queries={"kept": f"max({series(metrics.QUEUE_LENGTH, _DEAD_LETTERS)})"},
        width=4,
        kind="stat",
        steps=_NONE_IS_GOOD,
    ),
    Panel(
        title="Loops",
        about="Seconds since each loop that takes messages last went round. Above 25 it hangs.",
        queries={"{{hostname}}": f"max by (hostname) ({series(metrics.HEARTBEAT)})"},
        unit="s",
    ),
    Panel(
        title="Workers that answer on the broker",
        about="0 for an hour after a worker has gone, whether it was told to or not.",
        queries={"{{hostname}}": f"max by (hostname) ({series(metrics.WORKER_UP)})"},
    ),
    Panel(
        title="Since the scheduler last looked",
        queries={"beat": f"time() - max({series(metrics.BEAT_TICK)})"},
        unit="s",
    ),
)

_QUEUES = (
    Panel(
        title="Messages that wait",
        queries={"{{queue_name}}": f"max by (queue_name) ({series(metrics.QUEUE_LENGTH)})"},
        width=12,
    ),
    Panel(
        title="Seconds without a move",
        about="Of a queue that has messages and does not move. What the autoscaler goes by, and the alerts.",
        queries={"{{queue_name}}": f"max by (queue_name) ({series(metrics.QUEUE_STANDSTILL)})"},
        unit="s",
        width=12,
    ),
    Panel(
        title="Consumers",
        queries={"{{queue_name}}": f"max by (queue_name) ({series(metrics.QUEUE_CONSUMERS)})"},
    ),
    Panel(
        title="Messages in hand",
        about="Taken by workers and not finished. Missing where the broker does not say.",
        queries={"{{queue_name}}": f"max by (queue_name) ({series(metrics.QUEUE_UNACKNOWLEDGED)})"},
    ),
    Panel(
        title="Time in the queue, p95",
        about="Of messages that say when they were sent.",
        queries={"{{queue_name}}": quantile(metrics.TASK_QUEUE_WAIT, 0.95, "queue_name")},
        unit="s",
    ),
)

_WORK = (
    Panel(
        title="Deliveries begun, by queue",
        queries={"{{queue_name}}": rate(metrics.TASK_STARTED, "queue_name")},
        unit="ops",
    ),
    Panel(title="Deliveries done, by task", queries={"{{name}}": rate(metrics.TASK_SUCCEEDED, "name")}, unit="ops"),
    Panel(
        title="Failures, by queue",
        about="For good. Their messages are among the dead letters, or their end is written.",
        queries={"{{queue_name}} {{exception}}": increase(metrics.TASK_FAILED, "queue_name, exception")},
    ),
    Panel(
        title="What becomes of deliveries besides",
        about="Duplicates are work that was done already; rejected ones the broker gives out again.",
        queries={
            "retried": increase(metrics.TASK_RETRIED, ""),
            "handed back": increase(metrics.TASK_HANDED_BACK, ""),
            "duplicate": increase(metrics.TASK_DUPLICATE, ""),
            "rejected": increase(metrics.TASK_REJECTED, ""),
            "revoked": increase(metrics.TASK_REVOKED, ""),
            "forwarded": increase(metrics.MESSAGES_FORWARDED, ""),
        },
    ),
    Panel(
        title="Messages taken and sent",
        queries={"taken": rate(metrics.TASK_RECEIVED, ""), "sent": rate(metrics.TASK_SENT, "")},
        unit="ops",
    ),
    Panel(title="Seconds in a slot", queries=quantiles(metrics.TASK_RUNTIME), unit="s"),
    Panel(
        title="Slots busy",
        about="As the processes say it.",
        queries={
            "{{hostname}}": f"sum by (hostname) ({series(metrics.POOL_SLOTS_BUSY)})"
            f" / sum by (hostname) ({series(metrics.POOL_SLOTS)})"
        },
        unit="percentunit",
        width=12,
    ),
    Panel(
        title="Tasks that run",
        about="As the monitor hears it on the broker.",
        queries={"{{hostname}}": f"max by (hostname) ({series(metrics.WORKER_TASKS)})"},
        width=12,
    ),
)

_MACHINE = (
    Panel(
        title="Memory, of the limit",
        about="The kernel kills at 1. Of the machine's memory where there is no limit.",
        queries={"{{instance}}": f"max by (instance) ({series(metrics.MEMORY_SHARE)})"},
        unit="percentunit",
    ),
    Panel(title="Memory", queries={"{{instance}}": series(metrics.MEMORY)}, unit="bytes"),
    Panel(title="Processors", queries={"{{instance}}": rate(metrics.CPU, "instance")}),
    Panel(title="Threads", queries={"{{instance}}": series(metrics.THREADS)}, width=6),
    Panel(
        title="Descriptors, of the limit",
        queries={"{{instance}}": f"{series(metrics.DESCRIPTORS)} / {series(metrics.MOST_DESCRIPTORS)}"},
        unit="percentunit",
        width=6,
    ),
    Panel(
        title="Age of the processes",
        queries={"{{instance}}": f"time() - {series(metrics.STARTED)}"},
        unit="s",
        width=6,
    ),
    Panel(
        title="What runs",
        queries={
            "{{profile}} {{pool}} {{version}}, Celery {{celery}}, Python {{python}}": "count by "
            f"(profile, pool, version, celery, python) ({series(metrics.BUILD)})"
        },
        width=6,
    ),
)

FLEET = Board(
    name="fleet",
    title="Workers: fleet",
    about="Is the fleet well, what waits, and who works on it.",
    rows={"Is it well?": _WELL, "Queues": _QUEUES, "Work": _WORK, "Processes": _MACHINE},
)
