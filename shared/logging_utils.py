"""One formatter for every line: ours, those of Celery, kombu and httpx, and a crash's. JSON, or readable on a terminal.

Structlog over the standard library: https://www.structlog.org/en/stable/standard-library.html
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, TextIO

import structlog

from monitoring.prometheus_metrics import LOG_LINES_DROPPED
from shared.redaction import Redaction, shown_as, without_content
from shared.variables import Secret


def with_context(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: the line carries what its thread is about."""
    return {**_fields.get(), **event}


# One variable for all fields: structlog has one for each, and sets them one by one.
_fields: ContextVar[Mapping[str, Any]] = ContextVar("fields", default=MappingProxyType({}))
_SHARED = (
    with_context,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
# These say what our own events say better, and with what must not be in a log: addresses, arguments, results.
_QUIET = ("httpx", "httpcore", "celery.app.trace", "celery.worker.strategy", "celery.pool", "urllib3")
_LONGEST_FIELD = 200


_encode = json.JSONEncoder(default=str).encode
_encode_plain = json.JSONEncoder(check_circular=False).encode  # which then recurses too deep


def _as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


class _Handler(logging.StreamHandler[TextIO]):
    """Standard error. A line that cannot be written is said to be lost; Python would show what stood in it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line. Python's own raises what is nested too deep to whoever logs it."""
        try:
            super().emit(record)
        except RecursionError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 # Python's name
        """Count it, and say so in a line that can be written."""
        self._lose(record.name, record.levelname.lower())

    def write(self, line: str, logger: str, level: str) -> None:
        """Write a line that is one already. No error comes of it, though the stream be closed."""
        try:
            with self.lock or nullcontext():
                self.stream.write(line + self.terminator)
                self.stream.flush()
        except (OSError, ValueError):
            self._lose(logger, level)

    def _lose(self, logger: str, level: str) -> None:
        LOG_LINES_DROPPED.inc()
        with suppress(OSError, ValueError):
            self.stream.write(_encode({"event": "log_line_lost", "logger": logger, "level": level}) + self.terminator)


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Structlog's, and then a last look at the whole line, its traceback included."""

    def __init__(self, redact: Callable[[str], str], processors: list[Any]) -> None:
        # Not what others add to their lines: Celery adds the arguments of a failed task, and they hold secrets.
        taken_off = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        super().__init__(foreign_pre_chain=list(_SHARED), processors=[taken_off, *processors])
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The line as it is written."""
        return self._redact(super().format(record))


@lru_cache(maxsize=1)
def _second(since_the_epoch: int) -> str:
    """The date and the time, which many lines share: they cost a fifth of a line."""
    return datetime.fromtimestamp(since_the_epoch, UTC).replace(tzinfo=None).isoformat()


class _Log:
    """A logger of structlog's, with a shorter way for what every task says.

    Through structlog and Python's logging a line costs thrice as much; only they survive whatever may be in it.
    """

    handler: ClassVar[_Handler | None] = None  # where such lines go, if they go anywhere, and are JSON
    redact: ClassVar[Callable[[str], str]]

    def __init__(self, name: str) -> None:
        self._name, self._structlog = name, structlog.stdlib.get_logger(name)

    def info(self, event: str, **fields: Any) -> None:
        """Write a line at once, if JSON can show what is in it as it is."""
        if _Log.handler is None or "exc_info" in fields or any(map(shown_as, fields)):
            self._structlog.info(event, **fields)
            return
        line = {**_fields.get(), **fields, "event": event, "level": "info", "logger": self._name}
        now = time.time()
        line["timestamp"] = f"{_second(int(now))}.{int(now % 1 * 1_000_000):06}Z"
        try:
            written = _Log.redact(_encode_plain(line))
        except (TypeError, ValueError, RecursionError):
            self._structlog.info(event, **fields)
        else:
            _Log.handler.write(written, self._name, "info")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._structlog, name)


def configure_logging(level: str, log_format: str, secrets: Iterable[Secret] = ()) -> None:
    """Send every log line of this process to standard error, in one shape.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        log_format: json, console, or auto (console on a terminal, else json).
        secrets: what no line may show; what looks like a secret is hidden anyway.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    # Plain: where rich is installed, structlog would print the local variables of every frame, and the key is one.
    readable = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = readable if console else _as_json
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
    redaction = Redaction(secrets)
    handler = _Handler(sys.stderr)
    redact = redaction.text if console else redaction.json
    handler.setFormatter(_Formatter(redact, [without_content, *last]))
    _Log.handler, _Log.redact = None if console or level not in {"DEBUG", "INFO"} else handler, redact
    # No line shows where in the code it was written, or by which process: looking it up would cost as much as the rest.
    # https://docs.python.org/3/howto/logging.html#optimization
    logging._srcfile = None  # noqa: SLF001 # as Python's own page has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The pool's own, which keeps its lines from the others.
    pool = logging.getLogger("multiprocessing")
    pool.handlers[:], pool.propagate = [handler], False
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def log_crashes() -> None:
    """Have what Python prints by itself logged: warnings, and what ends the process or a thread, or cannot be raised.

    Source: https://docs.python.org/3/library/sys.html#sys.excepthook
    """
    log = get_logger(__name__)

    def in_process(kind: type[BaseException], error: BaseException, at: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, at)
            return
        log.critical("process_crashed", exc_info=(kind, error, at))

    def in_thread(crash: "threading.ExceptHookArgs") -> None:
        if crash.exc_type is not SystemExit:  # which ends a thread in peace
            name = crash.thread.name if crash.thread else None
            log.error("thread_crashed", thread=name, exc_info=_whole(crash.exc_value))

    def nowhere(crash: "sys.UnraisableHookArgs") -> None:
        # Not the object it happened to: its representation may hold anything.
        log.error("error_ignored", place=type(crash.object).__name__, exc_info=_whole(crash.exc_value))

    logging.captureWarnings(capture=True)
    sys.excepthook, threading.excepthook, sys.unraisablehook = in_process, in_thread, nowhere


def _whole(error: BaseException | None) -> Any:
    return (type(error), error, error.__traceback__) if error is not None else None


def get_logger(name: str) -> Any:
    """A logger of constant event names and keyword fields."""
    return _Log(name)


def begin_context(**fields: Any) -> None:
    """Have every line of this thread carry these fields, and none of those before, until `end_context`."""
    end_context()
    bind_context(**fields)


def end_context() -> None:
    """The lines of this thread are about nothing any more."""
    _fields.set(MappingProxyType({}))


@contextmanager
def fresh_context(**fields: Any) -> Iterator[None]:
    """A context in which every line of this thread carries these fields, and those that `bind_context` adds."""
    begin_context(**fields)
    try:
        yield
    finally:
        end_context()


@contextmanager
def inner_context(**fields: Any) -> Iterator[None]:
    """The same within another context, which is afterwards what it was, whatever was bound meanwhile."""
    before = context_fields()
    bind_context(**fields)
    try:
        yield
    finally:
        begin_context(**before)


def bind_context(**fields: Any) -> None:
    """Add fields to the lines of the context that this thread is in; those that are None are not there.

    They may come from a message that nobody has looked at: text is cut, and what is neither text nor number is left.
    """
    found = {name: value[:_LONGEST_FIELD] if isinstance(value, str) else value for name, value in fields.items()}
    known = {name: value for name, value in found.items() if isinstance(value, str | int) and value != ""}
    _fields.set({**_fields.get(), **known})


def context_fields() -> dict[str, Any]:
    """What the lines of this thread carry."""
    return dict(_fields.get())
