"""No line that is to be logged can fail the task that logs it, whatever is in it."""

import io
import json
import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from monitoring.registry import KEPT
from shared import logging_utils

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import logging, os, sys
from shared.logging_utils import bind_context, configure_logging, fresh_context, get_logger

class Unshowable:
    def __repr__(self):
        raise RuntimeError("it cannot be shown")
    __str__ = __repr__

circle = {}
circle["itself"] = circle
configure_logging("DEBUG", sys.argv[1])
log = get_logger("own")
texts = [b"\\xff", "\\ud800", "a\\nb"]
for odd in (Unshowable(), circle, {(1, 2): 3}, {None: 1}, *texts, float("nan"), 10**400, object()):
    log.info("odd", value=odd)
    log.error("odd", exc_info=odd)
    with fresh_context(task=odd):
        bind_context(execution_id=odd)
        log.warning("bound")
    logging.getLogger("foreign").warning("%d", odd)
    logging.getLogger("foreign").warning(odd)
logging.getLogger("foreign").warning("one too few: %s %s", 1)
logging.getLogger("foreign").handle(logging.makeLogRecord({"levelno": 30}))
logging.getLogger("foreign").handle(logging.makeLogRecord({"msg": None, "args": None, "levelno": 30, "levelname": "?"}))
log.info("the_last", place=1)
os.close(2)
log.info("nobody_hears")
try:
    sys.stderr.close()
except OSError:
    pass
log.info("nobody_hears")
print("survived")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_odd_records_fail_nobody(log_format: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, log_format], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.stdout == "survived\n", ran.stderr
    assert "the_last" in ran.stderr


def test_a_line_of_json_is_one_line() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, "json"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["place"] for line in lines if line["event"] == "the_last"] == [1]
    assert any(line["event"] == "log_line_lost" for line in lines)


def test_a_line_that_is_lost_is_counted() -> None:
    lost = KEPT.value("workers_log_lines_dropped_total")
    stream = io.StringIO()
    handler = logging_utils._Handler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.emit(logging.LogRecord("here", logging.INFO, "", 0, "%d of them", ("not a number",), None))
    assert KEPT.value("workers_log_lines_dropped_total") == lost + 1
    assert json.loads(stream.getvalue()) == {"event": "log_line_lost", "logger": "here", "level": "info"}


FAILS = """
from shared.logging_utils import configure_logging, get_logger
from shared.variables import Secret

configure_logging("INFO", "json", [Secret("open-sesame")])
log = get_logger("own")
log.debug("unheard")
try:
    raise ValueError("said open-sesame")
except ValueError:
    log.exception("failed", text="a page", path=__import__("pathlib").Path("/open-sesame"))
log.info("went_on", text="a page", path="/open-sesame")
log.info("went_on", text="a page", path=__import__("pathlib").Path("/open-sesame"))
"""


def test_lines_are_alike_whichever_way_they_go() -> None:
    ran = subprocess.run([sys.executable, "-c", FAILS], cwd=ROOT, capture_output=True, text=True, check=True)
    failed, went_on, again = (json.loads(line) for line in ran.stderr.splitlines())
    assert failed.pop("exception").endswith("ValueError: said ***")
    assert datetime.fromisoformat(failed.pop("timestamp")) <= datetime.fromisoformat(went_on.pop("timestamp"))
    assert failed == {"event": "failed", "level": "error", "logger": "own", "text": "<str, 6>", "path": "/***"}
    assert again.pop("timestamp")
    assert again == went_on == failed | {"event": "went_on", "level": "info"}
