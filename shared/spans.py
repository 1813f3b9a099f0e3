"""Spans by OpenTelemetry, imported only where they are wanted (`shared/tracing.py`).

Ours, and not those of OpenTelemetry's instrumentation of Celery and httpx. The first ends no span of a message whose
task only another process has, and those are what joins the workers; and it writes the text of exceptions, which may
quote a document or a key.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any

from celery.exceptions import Reject, Retry
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.logging_utils import context_fields
from shared.passage import Passage, carrying, current, passage_of
from shared.tracing import Say

_FLUSH_SECONDS = 2.0
_IDS = ("execution_id", "organization_id", "file_execution_id", "run_id", "workflow", "step")
_EXPORTERS: dict[str, Callable[[], SpanExporter]] = {"otlp": OTLPSpanExporter, "console": ConsoleSpanExporter}
_W3C = TraceContextTextMapPropagator()


class Spans:
    """The tracer of one process. Spans go out by a thread of its own, and are dropped where that cannot keep up.

    Args:
        exporter: otlp or console; the SDK reads where to, how, and which to sample from its own variables.
        service: the name of the service, unless OTEL_SERVICE_NAME has one.
    """

    def __init__(self, exporter: str, service: str) -> None:
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        # It would wait for its last export at exit, however long that takes.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_EXPORTERS[exporter]()))
        self._tracer = self._provider.get_tracer("unstract-workers")

    def span(self, kind: str, name: str, attributes: dict[str, Any]) -> "_Open":
        """A span within the trace that this thread carries; what it sends meanwhile is within this one."""
        passage = current() or passage_of(None)
        parent = _W3C.extract(passage.trace, Context())
        span = self._tracer.start_span(name, parent, SpanKind[kind], _known(attributes))
        trace: dict[str, str] = {}
        _W3C.inject(trace, set_span_in_context(span, parent))
        return _Open(span, replace(passage, **trace))

    def close(self) -> None:
        """Send what is left, for two seconds at the most."""
        closing = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        closing.start()
        closing.join(_FLUSH_SECONDS)


class _Open(AbstractContextManager[Say]):
    """A span while it lasts."""

    def __init__(self, span: Span, passage: Passage) -> None:
        self._span, self._carried = span, carrying(passage)

    def __enter__(self) -> Say:
        self._carried.__enter__()
        return self._say

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._carried.__exit__(None, None, None)
        if kind is not None and not issubclass(kind, Reject | Retry):  # Celery's ways to leave a task
            # Its kind alone: what it says may quote anything.
            self._span.set_status(StatusCode.ERROR)
            self._say(**{"error.type": kind.__name__})
        fields = context_fields()
        self._say(**{name: fields.get(name) for name in _IDS})
        self._span.end()

    def _say(self, **attributes: Any) -> None:
        self._span.set_attributes(_known(attributes))


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
