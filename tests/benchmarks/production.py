"""The environment that production has: the runtime dependencies alone, and nothing that tests and sandbox need."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import uv

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Production:
    """Attributes:
    python: its interpreter, of the version that runs this.
    beside: what to say beside each figure, if it is not the environment it should be.
    """

    python: str
    beside: str = ""


@contextmanager
def production() -> Iterator[Production]:
    """Make that environment, compiled as images have it; it goes with the run.

    What is installed besides weighs: httpx imports rich where it finds it, kombu yaml. Without uv, or where uv cannot
    make it, it is the environment of this process, and figures say so.
    """
    chosen = ("--no-default-groups", "--no-install-project", "--compile-bytecode")
    with tempfile.TemporaryDirectory(prefix="workers-runtime-") as folder:
        reason = uv.sync(ROOT, Path(folder), *chosen)
        if reason is None:
            yield Production(f"{folder}/bin/python")
        else:
            sys.stderr.write(f"weight: production's environment cannot be made: {reason}\n")
            yield Production(sys.executable, "with development's packages installed: uv could not make production's")
