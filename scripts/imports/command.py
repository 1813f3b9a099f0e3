"""The command: what is looked at, what is printed, and with which code it exits."""

from collections.abc import Iterator
from pathlib import Path

import click

from scripts.imports.contracts import broken
from scripts.imports.source import Kind, Looked, Wrong, look
from scripts.imports.trees import python_files, write_whole

ROOT = Path(__file__).resolve().parents[2]
# The reference backend is Django's. Everything else of ours is held to what a given tree is held to.
_DJANGO_IS_FINE = ROOT / "sandbox"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--check/--fix",
    default=None,
    help="Say what is wrong and change nothing, or replace old paths that have a place here.",
)
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]...")
def fix_imports(check: bool | None, paths: tuple[Path, ...]) -> None:
    """Find imports that do not belong in workers, in the files or folders PATH.

    Those are Django's, and the paths that modules had in the platform's own workers: unstract.workers.…, workers.…,
    backend.workers.…, and what was in their `shared` alone. Without PATH, --check looks at this project, and at the
    contracts of its pyproject.toml too. Strings are left alone. Exits 1 if anything is wrong, or is left so.
    """
    if check is None:
        raise click.UsageError("say --check or --fix")
    if not paths and not check:
        raise click.UsageError("--fix needs the PATH of what it shall change")
    if not paths and not (ROOT / "pyproject.toml").exists():
        raise click.UsageError("--check needs a PATH where this is not a checkout of the project")
    (_check if check else _fix)(paths)


def _check(paths: tuple[Path, ...]) -> None:
    lines = [] if paths else list(broken(ROOT))
    looked = 0
    for path, found in _look_at(paths or (ROOT,)):
        looked += 1
        lines += [_line(path, wrong) for wrong in found.wrong]
    for line in lines:
        click.echo(line)
    click.echo(f"files looked at: {looked}; wrong: {len(lines)}")
    raise SystemExit(1 if lines else 0)


def _fix(paths: tuple[Path, ...]) -> None:
    changed = left = 0
    for path, found in _look_at(paths):
        if any(wrong.kind is Kind.MOVED for wrong in found.wrong):
            write_whole(path, found.fixed)
            click.echo(f"{_shown(path)}: changed")
            changed += 1
        for wrong in found.wrong:
            if wrong.kind in {Kind.UNMAPPED, Kind.UNREAD}:
                click.echo(_line(path, wrong))
                left += 1
    click.echo(f"files changed: {changed}; left for you: {left}; strings were left alone")
    raise SystemExit(1 if left else 0)


def _look_at(paths: tuple[Path, ...]) -> Iterator[tuple[Path, Looked]]:
    for path in dict.fromkeys(one for given in paths for one in python_files(given)):
        found = look(path.read_bytes())
        if path.resolve().is_relative_to(_DJANGO_IS_FINE):
            found.wrong[:] = [wrong for wrong in found.wrong if wrong.kind is not Kind.FOREIGN]
        yield path, found


def _line(path: Path, wrong: Wrong) -> str:
    return f"{_shown(path)}:{wrong.line}: {wrong.what} → {wrong.remedy}"


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
