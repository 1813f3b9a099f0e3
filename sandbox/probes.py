"""Looking and waiting: processes, ports, brokers, conditions."""

import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

from amqp.exceptions import AMQPError
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from redis import RedisError

from config.workers import PROFILES

_LOOK_SECONDS = 0.05
# Below the ports that systems give to outgoing connections: one of those could take the port of a server that is being
# restarted, or even connect to itself there.
_PORTS = range(15_000, 32_000)


class StackError(Exception):
    """A part of the stack did not start, or ended; the message has the end of its log."""


def alive(pid: int) -> bool:
    """Whether a process of that id runs.

    Of one that was killed, the first thread may have ended before the others, which keep its ports until they have.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return False if Path("/proc/self").exists() else _answers(pid)
    return threads > 1 or status.rpartition(")")[2].split()[0] != "Z"


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, asked often; StackError when the time is over."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise StackError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(_LOOK_SECONDS)


def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=3):
            return True
    except OSError:
        return False


def unusable_broker(url: str) -> str | None:
    """Why the workers of a stack cannot have a broker for themselves, or None: they would take somebody's messages."""
    try:
        with Connection(url, connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, timeout=4)
            used = [queue for queue in PROFILES["all"].queues if _in_use(connection, queue)]
    except (OperationalError, AMQPError, RedisError, OSError, ValueError) as error:
        return f"it cannot be used: {type(error).__name__}: {error}"
    return f"somebody uses its queues {', '.join(used)}; empty them, or name a broker for this alone" if used else None


def _in_use(connection: Connection, queue: str) -> bool:
    with connection.channel() as channel:
        try:
            found = channel.queue_declare(queue, passive=True)
        except connection.channel_errors:
            return False
        return bool(found.message_count or found.consumer_count)


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that nobody uses now, all different."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", random.choice(_PORTS)))  # noqa: S311 # a port is no secret
            except OSError:
                one.close()
            else:
                held.append(one)
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
