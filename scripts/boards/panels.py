"""How a dashboard is written down: rows of panels, each a few queries over metrics that are declared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models

from monitoring.registry import Metric

_TAG = "workers"
_SOURCE = models.DataSourceRef("prometheus", "${datasource}")
_HEIGHTS = {"stat": 4, "graph": 8}
# Shares of the deliveries, requests or executions that are faster.
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        queries: PromQL by what its series are called; `{{label}}` stands for a label's value.
        about: what to make of it.
        unit: of Grafana: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
        width: of 24.
        kind: `graph`, or `stat` for what is so now.
        steps: the least value of each colour, for a stat; the first has none.
    """

    title: str
    queries: Mapping[str, str]
    about: str = ""
    unit: str = "short"
    width: int = 8
    kind: str = "graph"
    steps: Sequence[tuple[float | None, str]] = ((None, "text"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard.

    Attributes:
        name: of its file, and in its address.
        title: as Grafana lists it.
        about: whom it answers what.
        rows: panels by the title of their row; the widths of each line add up to 24.
    """

    name: str
    title: str
    about: str
    rows: Mapping[str, Sequence[Panel]] = field(default_factory=dict)


def series(metric: Metric | str, *matchers: str) -> str:
    """The series of a metric that come from the chosen jobs."""
    name = metric if isinstance(metric, str) else metric.name
    wanted = ", ".join(('job=~"$job"', *matchers))
    return f"{name}{{{wanted}}}"


def rate(metric: Metric, by: str, *matchers: str) -> str:
    """How many a second, added up but for these labels."""
    return _sum(f"rate({series(metric, *matchers)}[$__rate_interval])", by)


def increase(metric: Metric, by: str, *matchers: str) -> str:
    """How many in each interval of the graph, added up but for these labels."""
    return _sum(f"increase({series(metric, *matchers)}[$__rate_interval])", by)


def quantile(metric: Metric, share: float, by: str = "") -> str:
    """What that share of observations is below, in seconds."""
    buckets = series(f"{metric.name}_bucket")
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({buckets}[$__rate_interval])))"


def quantiles(metric: Metric) -> dict[str, str]:
    """Three of them, over everything."""
    return {name: quantile(metric, share) for name, share in QUANTILES.items()}


def _sum(expression: str, by: str) -> str:
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def built(board: Board) -> Dashboard:
    """A board for Grafana: its data source and jobs are chosen on it."""
    made = (
        Dashboard(board.title)
        .uid(f"workers-{board.name}")
        .description(board.about)
        .tags([_TAG])
        .editable()
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(DashboardLink("Workers").type(models.DashboardLinkType.DASHBOARDS).tags([_TAG]).keep_time(True))
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_jobs())
    )
    numbers = count(1)
    for title, panels in board.rows.items():
        made.with_row(Row(title).id(next(numbers)))
        for panel in panels:
            made.with_panel(_panel(panel, next(numbers)))
    return made


def _jobs() -> QueryVariable:
    return (
        QueryVariable("job")
        .label("Job")
        .datasource(_SOURCE)
        .query("label_values(workers_build_info, job)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel, number: int) -> Any:
    made: Any = _stat(panel) if panel.kind == "stat" else _graph()
    made.id(number).title(panel.title).datasource(_SOURCE).unit(panel.unit).min(0)
    made.span(panel.width).height(_HEIGHTS[panel.kind])
    if panel.about:
        made.description(panel.about)
    for letter, (name, expression) in zip(ascii_uppercase, panel.queries.items(), strict=False):
        query = Dataquery().ref_id(letter).datasource(_SOURCE).expr(expression).legend_format(name)
        made.with_target(query.instant() if panel.kind == "stat" else query.range())
    return made


def _stat(panel: Panel) -> stat.Panel:
    steps = [models.Threshold(value, color) for value, color in panel.steps]
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .color_mode(kinds.BigValueColorMode.BACKGROUND)
        .graph_mode(kinds.BigValueGraphMode.NONE)
    )


def _graph() -> timeseries.Panel:
    return (
        timeseries.Panel()
        .fill_opacity(10)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
