"""Python files below a path, and writing one of them whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

# Besides hidden folders, and virtual environments under whatever name.
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}


def python_files(path: Path) -> Iterator[Path]:
    """`path` itself if it is a file, else the .py and .pyi below it, in order; symbolic links are not followed."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not _is_skipped(here / name))
        found = (here / name for name in sorted(names) if name.endswith((".py", ".pyi")))
        yield from (one for one in found if one.is_file() and not one.is_symlink())


def _is_skipped(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in _SKIPPED or (folder / "pyvenv.cfg").exists()


def write_whole(path: Path, content: bytes) -> None:
    """Give a file other content and leave it its mode; whoever reads it meanwhile finds the old or the new.

    Raises:
        OSError: it could not be written, and is as it was
    """
    target = path.resolve()  # a link that was named stays one
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as beside:
        written = Path(beside.name)
        try:
            beside.write(content)
            beside.flush()
            os.fsync(beside.fileno())
            shutil.copymode(target, written)
            written.replace(target)
        finally:
            written.unlink(missing_ok=True)
