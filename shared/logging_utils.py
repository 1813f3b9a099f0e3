"""One formatter for every line: ours and those of Celery, kombu and httpx. JSON, or readable on a terminal.

Structlog over the standard library: https://www.structlog.org/en/stable/standard-library.html
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import structlog

_SHARED = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
# These say what our own events say better, and with what must not be in a log: addresses, arguments, results.
_QUIET = ("httpx", "httpcore", "celery.app.trace", "celery.worker.strategy", "celery.pool")


class _Handler(logging.StreamHandler[TextIO]):
    """Standard error. A line that cannot be written is said to be lost; Python would show what stood in it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 # Python's name
        """Say so, in a line that can be written."""
        lost = {"event": "log_line_lost", "logger": record.name, "level": record.levelname.lower()}
        with suppress(OSError, ValueError):
            self.stream.write(json.dumps(lost) + self.terminator)


def configure_logging(level: str, log_format: str) -> None:
    """Send every log line of this process to standard error, in one shape.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        log_format: json, console, or auto (console on a terminal, else json).
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    # Plain: where rich is installed, structlog would print the local variables of every frame, and the key is one.
    readable = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = readable if console else structlog.processors.JSONRenderer(default=str)
    last = [renderer] if console else [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # Not what others add to their lines: Celery adds the arguments of a failed task, and they hold secrets.
            foreign_pre_chain=list(_SHARED),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def get_logger(name: str) -> Any:
    """A logger of constant event names and keyword fields."""
    return structlog.stdlib.get_logger(name)


@contextmanager
def fresh_context(**fields: Any) -> Iterator[None]:
    """A context in which every line of this thread carries these fields, and those that `bind_context` adds."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)
    try:
        yield
    finally:
        structlog.contextvars.clear_contextvars()


def bind_context(**fields: Any) -> None:
    """Add fields to the lines of the context that this thread is in."""
    structlog.contextvars.bind_contextvars(**fields)
