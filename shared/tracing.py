"""Spans, where OTEL_TRACES_EXPORTER asks for them; otherwise nothing of OpenTelemetry is imported.

One for each delivery of a task, each message sent and each try of a request to the backend. What they are made of
stands in `shared/spans.py`.
"""

import pkgutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from celery import signals

from shared.config import Settings
from shared.variables import SettingsError

Say = Callable[..., None]


class Tracer(Protocol):
    """What makes the spans of a process."""

    def span(self, kind: str, name: str, attributes: dict[str, Any]) -> AbstractContextManager[Say]: ...

    def close(self) -> None: ...


_OFF: AbstractContextManager[Say] = nullcontext(lambda **_attributes: None)
_held: dict[str, Tracer] = {}


def span(kind: str, name: str, **attributes: Any) -> AbstractContextManager[Say]:
    """A span as long as a block of code; what the block is given adds attributes to it.

    Args:
        kind: CONSUMER, PRODUCER or CLIENT.
        name: one of few: no ids.
        attributes: neither content nor secrets.
    """
    tracer = _held.get("tracer")
    return _OFF if tracer is None else tracer.span(kind, name, attributes)


def install(settings: Settings, service: str) -> None:
    """Make a tracer in each process that runs tasks, after it was forked; if spans are wanted at all.

    The main process of a prefork pool runs none, and has none: its threads would not outlive the next fork.

    Raises:
        SettingsError: they are wanted, and OpenTelemetry is not installed.
    """
    if settings.traces == "none":
        return
    make = _maker(settings.traces)

    def begin(**_: Any) -> None:
        _held["tracer"] = make(settings.traces, service)

    def begin_without_children(sender: Any, **_: Any) -> None:
        if sender.app.conf.worker_pool != "prefork":
            begin()

    signals.worker_process_init.connect(begin, weak=False)
    signals.worker_ready.connect(begin_without_children, weak=False)
    signals.worker_process_shutdown.connect(_end, weak=False)
    signals.worker_shutdown.connect(_end, weak=False)


def _maker(exporter: str) -> Callable[[str, str], Tracer]:
    try:
        found: Callable[[str, str], Tracer] = pkgutil.resolve_name("shared.spans:Spans")
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("opentelemetry"):
            raise
        raise SettingsError(
            f"OTEL_TRACES_EXPORTER is {exporter}, and {missing.name} is not installed here: it is of the dependency "
            "group tracing (uv sync --group tracing)"
        ) from missing
    return found


def _end(**_: Any) -> None:
    tracer = _held.pop("tracer", None)
    if tracer is not None:
        tracer.close()
