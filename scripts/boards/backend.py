"""The internal API as the workers see it."""

from monitoring import prometheus_metrics as metrics
from scripts.boards.panels import Board, Panel, increase, quantile, quantiles, rate, series

_REQUESTS = (
    Panel(
        title="Requests, by outcome", queries={"{{outcome}}": rate(metrics.BACKEND_REQUESTS, "outcome")}, unit="reqps"
    ),
    Panel(
        title="Requests, by status",
        about="none: no answer, or not sent.",
        queries={"{{status}}": rate(metrics.BACKEND_REQUESTS, "status")},
        unit="reqps",
    ),
    Panel(
        title="Requests that failed, by route",
        queries={
            "{{route}} {{outcome}}": rate(metrics.BACKEND_REQUESTS, "route, outcome", 'outcome!~"ok|refused"'),
        },
        unit="reqps",
    ),
    Panel(
        title="Requests, by route",
        queries={"{{route}}": rate(metrics.BACKEND_REQUESTS, "route")},
        unit="reqps",
        width=24,
    ),
)

_TIMES = (
    Panel(title="Seconds of one attempt", queries=quantiles(metrics.BACKEND_SECONDS), unit="s"),
    Panel(
        title="Seconds of one attempt, p95 by route",
        queries={"{{route}}": quantile(metrics.BACKEND_SECONDS, 0.95, "route")},
        unit="s",
        width=16,
    ),
)

_PATIENCE = (
    Panel(
        title="Circuits",
        about="0 closed, 1 half open, 2 open; the worst of all processes.",
        queries={"{{group}}": f"max by (group) ({series(metrics.CIRCUIT_STATE)})"},
    ),
    Panel(
        title="Changes of circuits",
        queries={"{{group}} {{state}}": increase(metrics.CIRCUIT_CHANGES, "group, state")},
    ),
    Panel(
        title="Requests that waited here",
        about="For room in the bulkhead, or for a pause that the backend asked for.",
        queries={"{{group}} {{reason}}": rate(metrics.BACKEND_HELD, "group, reason")},
        unit="reqps",
    ),
    Panel(
        title="Attempts after the first, by route",
        queries={"{{route}}": rate(metrics.BACKEND_RETRIES, "route")},
        unit="reqps",
        width=24,
    ),
)

BACKEND = Board(
    name="backend",
    title="Workers: backend",
    about="The internal API as the workers see it: what they ask, what they hear, and how long that takes.",
    rows={"Requests": _REQUESTS, "Times": _TIMES, "Patience": _PATIENCE},
)
