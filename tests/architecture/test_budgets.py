"""The plan of the house as tests: sizes, broad excepts, readers of the environment, patches in tests."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKER_PATH = ("config", "monitoring", "shared", "api_deployment", "general", "file_processing", "callback")
APART = ("scripts", "shared/commands")
WORKFLOWS = ("shared/workflows",)
WORKER_PATH_LINES = 8_360
APART_LINES = 2_500
WORKFLOWS_LINES = 2_800
FILE_LINES = 350
FUNCTION_LINES = 40
FUNCTION_LINES_P90 = 25
BROAD_EXCEPTS = {"shared/health.py": 1, "shared/task.py": 1}


def sources(*folders: str) -> list[Path]:
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert found, f"no source in {folders}"
    return found


OURS = sources(*WORKER_PATH, "scripts", "sandbox")


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            held.update(range(token.start[0], token.end[0] + 1))
    return len(held - skipped)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (
                f"{path.relative_to(ROOT)}:{node.lineno} {node.name}",
                (node.end_lineno or node.lineno) - node.lineno + 1,
            )


@pytest.mark.parametrize(
    ("folders", "budget"), [(WORKER_PATH, WORKER_PATH_LINES), (APART, APART_LINES), (WORKFLOWS, WORKFLOWS_LINES)]
)
def test_code_fits_its_budget(folders: tuple[str, ...], budget: int) -> None:
    others = {path for folder in (*APART, *WORKFLOWS) if folder not in folders for path in sources(folder)}
    assert sum(code_lines(path) for path in sources(*folders) if path not in others) <= budget


def test_every_file_fits_on_a_desk() -> None:
    assert [path for path in OURS if len(path.read_text().splitlines()) > FILE_LINES] == []


def test_every_function_fits_on_a_screen() -> None:
    sizes = [found for path in OURS for found in functions(path)]
    assert [name for name, lines in sizes if lines > FUNCTION_LINES] == []
    assert sorted(lines for _, lines in sizes)[int(len(sizes) * 0.9)] <= FUNCTION_LINES_P90


def test_broad_excepts_stand_where_they_are_argued() -> None:
    found: dict[str, int] = {}
    for path in sources(*WORKER_PATH):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
                found[str(path.relative_to(ROOT))] = found.get(str(path.relative_to(ROOT)), 0) + 1
    assert found == BROAD_EXCEPTS


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(one) for one in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in {"Exception", "BaseException"})


def test_one_file_reads_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in sources(*WORKER_PATH, "scripts")
        if any(word in path.read_text() for word in ("os.environ", "getenv", "environ["))
    ]
    assert readers == ["shared/variables.py"]


def test_one_file_makes_clients_of_redis() -> None:
    """Fault 40: else one of them is not found again after a failover."""
    makers = ("redis.Redis(", "Redis.from_url(", "StrictRedis", "ConnectionPool(", "Sentinel(")
    found = [
        str(path.relative_to(ROOT))
        for path in sources(*WORKER_PATH, "scripts")
        if any(word in path.read_text() for word in makers)
    ]
    assert found == ["shared/redis_connection.py"]


def test_package_files_are_empty() -> None:
    assert [path for path in OURS if path.name == "__init__.py" and path.read_text()] == []
    assert not (ROOT / "__init__.py").exists()


def test_tests_rarely_patch() -> None:
    tests = [path for path in sources("tests") if path != Path(__file__)]
    patches = sum(
        any(word in line for word in ("monkeypatch.setattr", "mock.", "Mock(", "patch("))
        for path in tests
        for line in path.read_text().splitlines()
    )
    count = sum(name.split()[1].startswith("test_") for path in tests for name, _ in functions(path))
    assert patches <= count / 10
