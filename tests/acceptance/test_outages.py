"""A backend that dies under work: it is left in peace, nothing is lost, and nothing goes round in circles meanwhile."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from sandbox.stack import Stack, wait_for
from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import counts, documents, events, finish, watch_until_a_file_is
from tests.acceptance.test_health import number, status
from tests.conftest import Promtool
from tests.monitoring.test_alerts import ALERTS

RECOVERY_SECONDS = 2
OUTAGE_SECONDS = 12.0  # a finding of readiness is kept for ten


@contextmanager
def grave(port: int) -> Iterator[list[float]]:
    """What stands where the backend stood: takes every connection and resets it. Gives the times of them all."""
    knocks: list[float] = []
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                knocks.append(time.monotonic())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield knocks
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@dataclass(frozen=True, slots=True)
class Look:
    """What the file worker says: of its life, its readiness, its circuits (the worst), and how often it has asked."""

    live: int
    ready: int
    circuit: float
    asked: float


def look(stack: Stack) -> Look:
    worker, state = "file_processing", "workers_circuit_breaker_state"
    circuits = [number(stack, state, worker, group=group) for group in ("records", "bulk", "tools")]
    asked = number(stack, "workers_backend_requests_total", worker)
    return Look(status(stack, "/livez", worker), status(stack, "/readyz", worker), max(circuits), asked)


def green(seen: Look) -> bool:
    return (seen.live, seen.ready, seen.circuit) == (200, 200, 0)


def firing(seen: Sequence[Look], folder: Path, promtool: Promtool) -> list[bool]:
    """Whether CircuitOpen fires at each of these looks, had a minute been between every two."""
    series = {
        'workers_circuit_breaker_state{job="celery",instance="one",group="tools"}': [one.circuit for one in seen],
        'workers_backend_requests_total{job="celery",instance="one",route="any"}': [one.asked for one in seen],
    }
    expected = {"exp_labels": {"job": "celery", "instance": "one", "group": "tools", "severity": "page"}}
    rules = yaml.safe_load(ALERTS.read_text())
    rules["groups"] = [
        {"name": "one", "rules": [{**rule, "annotations": {}}]}
        for group in rules["groups"]
        for rule in group["rules"]
        if rule["alert"] == "CircuitOpen"
    ]
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))

    def fires(at: int) -> bool:
        test = {
            "interval": "1m",
            "input_series": [{"series": name, "values": " ".join(map(str, values))} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": f"{at}m", "alertname": "CircuitOpen", "exp_alerts": [expected]}],
        }
        (folder / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [test]}))
        return promtool("test", "rules", str(folder / "test.yml")).returncode == 0

    return [fires(at) for at in range(len(seen))]


def beats(seconds: float) -> Iterator[None]:
    """Two in a second, for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.5)


def test_a_dead_backend_is_left_in_peace_and_its_work_waits_in_the_slots(
    start_fleet: Callable[..., Fleet], tmp_path: Path, promtool: Promtool
) -> None:
    stack, driver = start_fleet(
        "api_deployment",
        "file_processing",
        "callback",
        CIRCUIT_BREAKER_RECOVERY_TIMEOUT=str(RECOVERY_SECONDS),
        BATCH_SLICE_SECONDS="20",
    )
    deployment = driver.deploy("dead", batches=16)
    driver.control("PUT", "switches", {"tool_seconds": 0.5})
    sent = documents(tmp_path, 64)
    run = driver.post(deployment, sent)
    watch_until_a_file_is(driver, run, "COMPLETED")
    before = len(events(stack, "file_processing", "task_ended"))
    stack.stop_and_wait("backend")
    with grave(int(stack.backend_url.rpartition(":")[2])) as knocks:
        seen = [look(stack) for _ in beats(OUTAGE_SECONDS)]
        ended = Counter(end["outcome"] for end in events(stack, "file_processing", "task_ended")[before:])
    stack.restart("backend")
    stack.wait_until_ready()
    # Not how often tools ran: what the backend was at when it died, it begins again.
    assert counts(finish(driver, run)) == ("COMPLETED", len(sent), len(sent), 0)
    wait_for(lambda: green(look(stack)), 15, "everything to be green again")
    assert {one.live for one in seen} == {200}
    assert seen[-1].ready == 503
    assert max(one.circuit for one in seen) == 2  # open; half open while it probes
    alarms = firing([*seen[::2], *[look(stack)] * 2], tmp_path, promtool)
    assert alarms[-3:] == [True, False, False]

    # Sixteen slots: ten sends to learn of it, what was on its way meanwhile, and a probe of each group now and then.
    assert len(knocks) <= 10 + 16 + 2 * OUTAGE_SECONDS / RECOVERY_SECONDS + 3 * 2
    late = [knock for knock in knocks if knock > knocks[0] + RECOVERY_SECONDS / 2]
    # And readiness asks, once in ten seconds.
    assert 1 <= len(late) <= 2 * OUTAGE_SECONDS / RECOVERY_SECONDS + 3 * 2
    # Who had sent when it died is retried; the rest wait where they are. None is taken and published round and round.
    assert ended["handed_back"] == 0
    assert ended["retried"] <= 16
    changes = [(event["before"], event["after"]) for event in events(stack, "file_processing", "circuit_changed")]
    assert changes[0] == ("closed", "open")
    assert changes[-1] == ("half_open", "closed")
