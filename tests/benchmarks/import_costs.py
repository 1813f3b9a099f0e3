"""What importing each dependency takes: by itself, and in a worker's own order, after those that come before it."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.benchmarks.figures import Figure
from tests.benchmarks.production import ROOT, Production

OURS = "shared.celery_app"
# The modules of each that a worker uses: celery's and pydantic's own names are imported when they are first looked up.
LIBRARIES: Mapping[str, Sequence[str]] = {
    "celery + kombu": (
        "celery.bin.worker",
        "celery.apps.worker",
        "celery.concurrency.thread",
        "kombu.transport.pyamqp",
    ),
    "redis": ("redis",),
    "httpx": ("httpx",),
    "pydantic": ("pydantic.main", "pydantic.types", "pydantic.functional_validators", "pydantic.type_adapter"),
    "structlog": ("structlog",),
    "tenacity": ("tenacity",),
    "prometheus_client": ("prometheus_client",),
    "amqp": ("amqp",),
}
_PROBE = """
import importlib, json, sys, time

def resident():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:")) * 1024

found = []
for names in sys.argv[1:]:
    held, begun = resident(), time.perf_counter()
    for name in names.split(","):
        importlib.import_module(name)
    found.append(((time.perf_counter() - begun) * 1e3, (resident() - held) / 1e6))
print(json.dumps(found))
"""
_ORDER = "import json, sys, shared.celery_app\nprint(json.dumps(list(sys.modules)))"


def _asked(on: Production, code: str, *arguments: str) -> list[Any]:
    done = subprocess.run(
        [on.python, "-P", "-c", code, *arguments],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
        text=True,
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def _costs(on: Production, *groups: Sequence[str]) -> list[tuple[float, float]]:
    """Milliseconds and MB of each in a fresh interpreter, one after the other."""
    return [(float(ms), float(mb)) for ms, mb in _asked(on, _PROBE, *map(",".join, groups))]


def workers_order(on: Production) -> list[str]:
    """The libraries as a worker comes to them; last those that it comes to only when it runs."""
    met = {str(name).split(".", 1)[0]: place for place, name in reversed(list(enumerate(_asked(on, _ORDER))))}
    return sorted(LIBRARIES, key=lambda name: met.get(name.split()[0], len(met) + 10**6))


def import_costs(on: Production, section: str, rounds: int) -> Iterator[Figure]:
    """For each library and for all of ours: ms and MB by itself, and what it adds after those before it."""
    order = workers_order(on)
    whole = {**{name: LIBRARIES[name] for name in order}, OURS: (OURS,)}
    alone: Mapping[str, list[tuple[float, float]]] = defaultdict(list)
    added: Mapping[str, list[tuple[float, float]]] = defaultdict(list)
    _costs(on, *whole.values())  # warm
    for _ in range(rounds):
        for name, modules in whole.items():
            alone[name] += _costs(on, modules)
        for name, cost in zip(whole, _costs(on, *whole.values()), strict=True):
            added[name].append(cost)
    for found, what in ((alone, "by itself"), (added, "after those above")):
        for name in whole:
            named = f"import {name}, {what}"
            yield Figure(section, f"{named}: time", [ms for ms, _ in found[name]], "ms", beside=on.beside)
            yield Figure(section, f"{named}: resident", [mb for _, mb in found[name]], "MB", beside=on.beside)
