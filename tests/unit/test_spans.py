"""Spans: what they say, and that they say no more."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from celery.exceptions import Retry
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared import spans
from shared.logging_utils import fresh_context, inner_context
from shared.passage import Passage, carrying, http_headers, trace_id
from shared.spans import Spans

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


class Tracer:
    """A tracer, and what it has exported."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self.exporter, self.spans = exporter, Spans("memory", "workers-test")

    @property
    def exported(self) -> tuple[ReadableSpan, ...]:
        self.spans._provider.force_flush()
        return self.exporter.get_finished_spans()

    def ended(self) -> list[dict[str, object]]:
        names = ((span.name, span.status.status_code.name, span.attributes) for span in self.exported)
        return [{"name": name, "status": status, **(attributes or {})} for name, status, attributes in names]


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    exporter = InMemorySpanExporter()
    monkeypatch.setitem(spans._EXPORTERS, "memory", lambda: exporter)
    made = Tracer(exporter)
    yield made
    made.spans.close()


def test_a_span_is_within_the_trace_that_came_and_what_is_sent_within_the_span(tracer: Tracer) -> None:
    with carrying(Passage("the-request", PARENT, "vendor=opaque")):
        with tracer.spans.span("CLIENT", "GET it", {}):
            sent = http_headers()
            assert trace_id() == TRACE_ID
        assert http_headers()["traceparent"] == PARENT
    (span,) = tracer.exported
    assert span.context is not None
    assert span.parent is not None
    assert sent == {
        "X-Request-ID": "the-request",
        "traceparent": f"00-{TRACE_ID}-{span.context.span_id:016x}-01",
        "tracestate": "vendor=opaque",
    }
    assert f"{span.parent.span_id:016x}" in PARENT
    assert span.resource.attributes["service.name"] == "workers-test"


def test_what_is_not_sampled_is_said_to_be_so_to_those_behind(tracer: Tracer) -> None:
    with carrying(Passage("the-request", f"{PARENT[:-2]}00")), tracer.spans.span("CLIENT", "GET it", {}):
        assert http_headers()["traceparent"].startswith(f"00-{TRACE_ID}-")
        assert http_headers()["traceparent"].endswith("-00")
    assert tracer.ended() == []


def test_a_span_has_the_ids_of_its_lines_those_of_its_file_alone(tracer: Tracer) -> None:
    with fresh_context(execution_id="ex", organization_id="org"), tracer.spans.span("CONSUMER", "run", {}) as say:
        with inner_context(file_execution_id="fe"), tracer.spans.span("CLIENT", "GET", {"queue": None}):
            pass
        say(outcome="succeeded")
    assert tracer.ended() == [
        {"name": "GET", "status": "UNSET", "execution_id": "ex", "organization_id": "org", "file_execution_id": "fe"},
        {"name": "run", "status": "UNSET", "execution_id": "ex", "organization_id": "org", "outcome": "succeeded"},
    ]


def test_an_error_is_its_kind_and_never_its_text(tracer: Tracer) -> None:
    with pytest.raises(ValueError, match="content"), tracer.spans.span("CLIENT", "GET", {}):
        raise ValueError("somebody's content")
    assert tracer.ended() == [{"name": "GET", "status": "ERROR", "error.type": "ValueError"}]
    assert "content" not in tracer.exported[0].to_json()


def test_a_retry_is_no_error(tracer: Tracer) -> None:
    with pytest.raises(Retry), tracer.spans.span("CONSUMER", "run", {}):
        raise Retry
    assert tracer.ended() == [{"name": "run", "status": "UNSET"}]


class Silent(InMemorySpanExporter):
    """A collector that takes what it is sent, and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.over = threading.Event(), threading.Event()

    def export(self, _spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.over.wait(30)
        return SpanExportResult.FAILURE


def test_a_collector_that_never_answers_holds_up_neither_a_task_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Silent()
    monkeypatch.setitem(spans._EXPORTERS, "silent", lambda: silent)
    monkeypatch.setattr(spans, "_FLUSH_SECONDS", 0.2)
    made = Spans("silent", "workers-test")
    begun = time.monotonic()
    for _ in range(5_000):  # more than are kept for it
        with made.span("CLIENT", "GET", {}):
            pass
    made.close()
    assert silent.asked.wait(5)
    assert time.monotonic() - begun < 5
    silent.over.set()
