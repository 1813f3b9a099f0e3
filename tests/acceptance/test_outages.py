"""A backend that dies under work: it is left in peace, nothing is lost, and nothing goes round in circles meanwhile."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.conftest import Fleet
from tests.acceptance.test_executions import counts, documents, events, finish, watch_until_a_file_is

RECOVERY_SECONDS = 2
OUTAGE_SECONDS = 5.0


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


def test_a_dead_backend_is_left_in_peace_and_its_work_waits_in_the_slots(
    start_fleet: Callable[..., Fleet], tmp_path: Path
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
        time.sleep(OUTAGE_SECONDS)
        ended = Counter(end["outcome"] for end in events(stack, "file_processing", "task_ended")[before:])
    stack.restart("backend")
    stack.wait_until_ready()
    # Not how often tools ran: what the backend was at when it died, it begins again.
    assert counts(finish(driver, run)) == ("COMPLETED", len(sent), len(sent), 0)

    # Sixteen slots: ten sends to learn of it, what was on its way meanwhile, and a probe of each group now and then.
    assert len(knocks) <= 10 + 16 + 2 * OUTAGE_SECONDS / RECOVERY_SECONDS
    late = [knock for knock in knocks if knock > knocks[0] + RECOVERY_SECONDS / 2]
    assert 1 <= len(late) <= 2 * OUTAGE_SECONDS / RECOVERY_SECONDS
    # Who had sent when it died is retried; the rest wait where they are. None is taken and published round and round.
    assert ended["handed_back"] == 0
    assert ended["retried"] <= 16
    changes = [(event["before"], event["after"]) for event in events(stack, "file_processing", "circuit_changed")]
    assert changes[0] == ("closed", "open")
    assert changes[-1] == ("half_open", "closed")
