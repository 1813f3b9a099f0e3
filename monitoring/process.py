"""What a process and its children take of the machine, as the kernel says it."""

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

_CGROUP = Path("/sys/fs/cgroup")
# Of version 2, and of version 1: limit, usage, and what of the usage the kernel would give up first.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)

_NO_LIMIT = 1 << 60  # what version 1 says, more or less


def usage(pid: int) -> dict[str, float]:
    """One process, by names as Prometheus has them: `process_cpu_seconds_total`. Empty of one that has ended."""
    collector = ProcessCollector(pid=lambda: pid, registry=CollectorRegistry())
    found = {sample.name: sample.value for family in collector.collect() for sample in family.samples}
    try:
        return found | {"process_threads": float(len(list(Path(f"/proc/{pid}/task").iterdir())))}
    except OSError:
        return found


def sums(pids: Iterable[int], *names: str) -> dict[str, float]:
    """The usage of several processes, added up."""
    each = [usage(pid) for pid in pids]
    return {name: sum(one.get(name, 0.0) for one in each) for name in names}


def memory_share(cgroup: Path = _CGROUP) -> float:
    """The share of its limit that the container uses, as the kernel counts before it kills.

    Without a limit it is the share of the machine's memory that is in use.
    """
    for limit, current, stat, cache in _MEMORY_FILES:
        try:
            most = (cgroup / limit).read_text().strip()
            if not most.isdigit() or int(most) >= _NO_LIMIT:
                continue
            spare = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
            return (int((cgroup / current).read_text()) - int(spare.get(cache, 0))) / int(most)
        except OSError:
            continue
    machine = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    return 1 - int(machine["MemAvailable:"]) / int(machine["MemTotal:"])
