"""`workers bench`: how light, how fast, and how far from the limit, on this machine.

Every part starts what it measures as processes of its own, on loopback, and ends them. Ratios are of two that took
turns within this run; a figure by itself means something on this machine alone. `--quick` takes under three minutes and
has fewer rounds, `--full` under thirty, on two cores.
"""

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.probes import StackError
from sandbox.servers import rabbitmq_program
from tests.benchmarks import internal_requests, latency, peer_systems, throughput, weight
from tests.benchmarks.figures import Figure, table
from tests.benchmarks.world import How

PARTS: Mapping[str, Callable[[How], Iterator[Figure]]] = {
    "weight": weight.measure,
    "latency": latency.measure,
    "throughput": throughput.measure,
    "requests": internal_requests.measure,
    "peers": peer_systems.measure,
}
README = Path(__file__).resolve().parents[2] / "README.md"
_PLACE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.S)


def machine(how: How) -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {how.broker_name}"


def measure(how: How, parts: Sequence[str], begun: float) -> list[Figure]:
    """Every part in turn, each figure told as it comes."""
    found: list[Figure] = []
    for part in parts:
        sys.stderr.write(f"[{time.monotonic() - begun:6.0f} s] {part}\n")
        for figure in PARTS[part](how):
            found.append(figure)
            _, name, measured, aim, beside = figure.cells()
            sys.stderr.write(f"[{time.monotonic() - begun:6.0f} s]   {name}: {measured}  {aim} {beside}\n")
    return found


def report(found: Sequence[Figure], **about: Any) -> str:
    return json.dumps({**about, "figures": [one.as_json() for one in found]}, indent=1, ensure_ascii=False) + "\n"


def into_readme(found: Sequence[Figure], said: str) -> None:
    """Replace README's table by the headlines among these."""
    shown = f"{said}\n\n{table([one for one in found if one.headline])}\n"
    README.write_text(_PLACE.sub(lambda _: shown, README.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="workers bench", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="under three minutes (as without either)")
    length.add_argument("--full", action="store_true", help="under thirty minutes: more rounds, peers, 10,000 files")
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="this part; may be given again")
    parser.add_argument("--broker", choices=("rabbitmq", "redis"), help="by default RabbitMQ, if it is installed")
    parser.add_argument("--json", type=Path, help="write every number there")
    parser.add_argument("--readme", action="store_true", help="write the headlines into README")
    asked = parser.parse_args()
    broker = asked.broker or ("rabbitmq" if rabbitmq_program() else "redis")
    how, begun = How(quick=not asked.full, broker=broker), time.monotonic()
    parts = [name for name in PARTS if not asked.only or name in asked.only]
    try:
        found = measure(how, parts, begun)
    except StackError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    seconds = round(time.monotonic() - begun)
    command = " ".join(["uv run workers bench", "--full" if asked.full else "--quick", *_said(asked)])
    said = f"`{command}` on {time.strftime('%Y-%m-%d', time.gmtime())}, {machine(how)}, {seconds} s:"
    sys.stdout.write(f"{said}\n\n{table(found)}\n")
    if asked.json:
        asked.json.write_text(report(found, command=command, machine=machine(how), seconds=seconds), encoding="utf-8")
    if asked.readme:
        into_readme(found, said)
    return 0


def _said(asked: argparse.Namespace) -> list[str]:
    parts = [word for name in asked.only or [] for word in ("--only", name)]
    return parts + (["--broker", asked.broker] if asked.broker else [])


if __name__ == "__main__":
    sys.exit(main())
