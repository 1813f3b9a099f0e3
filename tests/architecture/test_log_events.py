"""What our own lines are called: constant names, so that a line can be looked for."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("config", "monitoring", "shared", "api_deployment", "general", "file_processing", "callback", "scripts")
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
NAME = re.compile(r"[a-z]+(_[a-z0-9]+)*")


def calls(path: Path) -> Iterator[ast.Call]:
    """The calls of a logger, by the name that every module gives it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            logger = node.func.value
            if isinstance(logger, ast.Name) and logger.id == "log":
                yield node


def is_constant(call: ast.Call) -> bool:
    first = call.args[0] if len(call.args) == 1 else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and bool(NAME.fullmatch(first.value))


def test_every_event_of_ours_has_a_constant_name() -> None:
    found = [(path, call) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") for call in calls(path)]
    assert len(found) > 40
    assert [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in found if not is_constant(call)] == []


def test_every_logger_of_ours_is_called_log() -> None:
    """Else the test above would look past it. The scheduler has Celery's own: it is installed without structlog."""
    pattern = re.compile(r"^\s*(\w+)(?:: \w+)? = get_logger\(", re.MULTILINE)
    texts = [path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    ours = [text for text in texts if "celery.utils.log" not in text]
    assert {name for text in ours for name in pattern.findall(text)} == {"log"}
