"""What users have of it: executions, their files, and what was to be told or written besides."""

from monitoring import prometheus_metrics as metrics
from scripts.boards.panels import QUANTILES, Board, Panel, increase, quantile, rate, series

_EXECUTIONS = (
    Panel(title="Open", queries={"open": f"max({series(metrics.EXECUTIONS_OPEN)})"}, width=4, kind="stat"),
    Panel(
        title="Overdue",
        about="Open executions that the reaper should have looked after more than five minutes ago.",
        queries={"overdue": f"max({series(metrics.EXECUTIONS_OVERDUE)})"},
        width=4,
        kind="stat",
        steps=((None, "green"), (1, "red")),
    ),
    Panel(
        title="Ended in this time",
        queries={"{{status}}": f"sum by (status) (increase({series(metrics.EXECUTIONS)}[$__range]))"},
        width=16,
        kind="stat",
    ),
    Panel(
        title="Executions that end, by status", queries={"{{status}}": increase(metrics.EXECUTIONS, "status")}, width=12
    ),
    Panel(
        title="Seconds from creation to the end, by kind",
        queries={
            f"{{{{kind}}}} {name}": quantile(metrics.EXECUTION_SECONDS, share, "kind")
            for name, share in QUANTILES.items()
        },
        unit="s",
        width=12,
    ),
)

_FILES = (
    Panel(title="Files that end, by outcome", queries={"{{outcome}}": increase(metrics.FILES, "outcome")}),
    Panel(title="Pages", queries={"pages": rate(metrics.PAGES, "")}, unit="ops"),
    Panel(title="Batches that end, by outcome", queries={"{{outcome}}": increase(metrics.BATCHES, "outcome")}),
)

_WORKFLOWS = (
    Panel(
        title="Runs that end, by workflow and status",
        queries={"{{workflow}} {{status}}": increase(metrics.WORKFLOW_RUNS, "workflow, status")},
    ),
    Panel(
        title="Seconds from a run's start to its end",
        queries={
            f"{{{{workflow}}}} {name}": quantile(metrics.WORKFLOW_RUN_SECONDS, share, "workflow")
            for name, share in QUANTILES.items()
        },
        unit="s",
    ),
    Panel(
        title="Steps by what they come to",
        about="retrying: an attempt that is made again.",
        queries={"{{step}} {{outcome}}": increase(metrics.WORKFLOW_STEPS, "step, outcome")},
    ),
    Panel(
        title="Seconds of one attempt, 95 of 100",
        queries={"{{workflow}} {{step}}": quantile(metrics.WORKFLOW_STEP_SECONDS, QUANTILES["p95"], "workflow, step")},
        unit="s",
        width=24,
    ),
)

_BESIDES = (
    Panel(
        title="What the reaper did",
        about="alive and waited are usual. The others are executions that somebody else had lost.",
        queries={"{{action}}": increase(metrics.REAPED, "action")},
    ),
    Panel(
        title="Notifications",
        about="Of ends of executions: handed to the backend's buffer, or sent from here.",
        queries={
            "{{outcome}}": increase(metrics.NOTIFICATIONS, "outcome"),
            "repeated": increase(metrics.NOTIFICATIONS_REPEATED, ""),
        },
    ),
    Panel(title="Webhooks", queries={"{{outcome}}": increase(metrics.WEBHOOKS, "outcome")}),
    Panel(title="Log lines of executions", queries={"{{outcome}}": increase(metrics.LOG_RECORDS, "outcome")}, width=12),
    Panel(
        title="Dropped",
        about="Everything that was to be done and will not be. Alerts tell of each.",
        queries={
            "executions": increase(metrics.EXECUTIONS_DROPPED, ""),
            "messages, {{reason}}": increase(metrics.MESSAGES_DROPPED, "reason"),
            "notifications, {{reason}}": increase(metrics.NOTIFICATIONS_DROPPED, "reason"),
            "webhooks, {{reason}}": increase(metrics.WEBHOOKS_DROPPED, "reason"),
            "marks of webhooks": increase(metrics.WEBHOOK_MARKS_DROPPED, ""),
            "histories, {{reason}}": increase(metrics.HISTORIES_DROPPED, "reason"),
            "log lines not shown": increase(metrics.LOG_EMISSIONS_DROPPED, ""),
            "log lines not written": increase(metrics.LOG_LINES_DROPPED, ""),
        },
        width=12,
    ),
)

EXECUTIONS = Board(
    name="executions",
    title="Workers: executions",
    about="What users have of it: how many executions end, how, and how long they take.",
    rows={"Executions": _EXECUTIONS, "Files": _FILES, "Workflows": _WORKFLOWS, "Besides": _BESIDES},
)
