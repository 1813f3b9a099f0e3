"""What PromQL names: metrics, and labels of them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import promql_parser as promql

from monitoring.registry import DECLARED

# What Prometheus itself says, and the labels that it gives to every target.
ITS_OWN: Mapping[str, set[str]] = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
OF_TARGETS = {"job", "instance"}
_OF_HISTOGRAMS: Mapping[str, set[str]] = {"_bucket": {"le"}, "_count": set(), "_sum": set()}
# Grafana's, as one would choose them.
_CHOSEN = {"$__rate_interval": "1m", "$__range": "3h", "$job": ".+"}


def substituted(expression: str) -> str:
    """The expression of a panel as Prometheus is asked it."""
    for name, value in _CHOSEN.items():
        expression = expression.replace(name, value)
    return expression


def labels_of(series: str) -> set[str] | None:
    """The labels that such a series may have, or none if no metric of that name is declared."""
    if series in ITS_OWN:
        return ITS_OWN[series] | OF_TARGETS
    if series in DECLARED and DECLARED[series].kind != "histogram":
        return set(DECLARED[series].labels) | OF_TARGETS
    for suffix, more in _OF_HISTOGRAMS.items():
        metric = DECLARED.get(series.removesuffix(suffix))
        if metric is not None and metric.kind == "histogram" and series.endswith(suffix):
            return set(metric.labels) | more | OF_TARGETS
    return None


def named(expression: str) -> set[str]:
    """The names of all series in it."""
    return {selector.name for selector in _selectors(promql.parse(substituted(expression)))}


def metric_of(series: str) -> str:
    """The declared metric that a series belongs to."""
    found = (series.removesuffix(suffix) for suffix in ("", *_OF_HISTOGRAMS))
    return next((name for name in found if name in DECLARED), series)


def undeclared(expression: str) -> list[str]:
    """What it names and nobody shows: series, and labels in matchers (and their values), groupings, matchings."""
    found = []
    for node in _nodes(promql.parse(substituted(expression))):
        if isinstance(node, promql.VectorSelector):
            found += _unknown([node], [matcher.name for matcher in node.matchers.matchers])
            found += [
                f"{node.name}{{{one.name}={one.value}}}"
                for one in node.matchers.matchers
                if _impossible(node.name, one)
            ]
        elif isinstance(node, promql.AggregateExpr) and node.modifier:
            found += _unknown(_selectors(node.expr), node.modifier.labels)
        elif isinstance(node, promql.BinaryExpr) and node.modifier and node.modifier.matching:
            # What is ignored is a label of one side, else nothing would need to be.
            on = node.modifier.matching.type == promql.LabelModifierType.Include
            each = [_unknown(_selectors(side), node.modifier.matching.labels) for side in (node.lhs, node.rhs)]
            found += [*each[0], *each[1]] if on or all(each) else []
    return found


def _unknown(selectors: Iterable[Any], labels: Iterable[str]) -> list[str]:
    labels = list(labels)
    known = {selector.name: labels_of(selector.name) for selector in selectors}
    return [name for name, own in known.items() if own is None] + [
        f"{name}{{{label}}}" for name, own in known.items() for label in labels if own is not None and label not in own
    ]


def _impossible(series: str | None, matcher: promql.Matcher) -> bool:
    metric = DECLARED.get(metric_of(series or ""))
    known = metric.labels.get(matcher.name) if metric else None
    values = matcher.value.split("|") if matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe) else [matcher.value]
    return bool(known) and not set(values) <= set(known or ())


def _selectors(expression: promql.Expr) -> Iterator[Any]:
    return (node for node in _nodes(expression) if isinstance(node, promql.VectorSelector))


def _nodes(expression: promql.Expr) -> list[promql.Expr]:
    found: list[promql.Expr] = []

    def keep(node: promql.Expr) -> bool:
        found.append(node)
        return True

    promql.walk(expression, keep)
    return found
