"""Files that are made from something else here: written, or seen to be as that says."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path


def settle(files: Mapping[Path, str], extra: Iterable[Path], root: Path, stale: str, *, check: bool) -> None:
    """Write each file that is not as it is to be, and delete what no longer belongs to them.

    With `check` nothing is written: the process ends with 1 if there are any, with their paths from `root` and with
    `stale`, which says what there is to do.
    """
    old = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    gone = list(extra)
    if check and old + gone:
        sys.exit(f"{', '.join(str(path.relative_to(root)) for path in old + gone)}: {stale}")
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    for path in gone:
        path.unlink()
