"""A worker with tasks for tests, in the production application: `python probe.py [celery worker options]`.

PROBE_PROFILE says which of the two profiles: the second has low queues besides, or of the class that PROBE_LOW says.
Its tasks tell Redis (`CACHE_REDIS_*`) what they do, in lists that tests read.
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

from config import queue_routing, workers
from config.queue_routing import Priority, Route
from config.workers import Pool, Profile
from monitoring.registry import Metric
from shared import celery_app, outcome
from shared.call import Call
from shared.errors import BackendUnavailableError, HandBack, UndeliveredError
from shared.task import task

QUEUE = "probe"
OTHER = "probe_other"
LOW = ("probe_low", "probe_low_too")
LIST = "probe:events"
_METER: dict[str, int] = {}


def say(call: Call, what: str, *more: Any) -> None:
    """One event: what, the task's id, the process, the time."""
    words = [what, call.task_id, str(os.getpid()), f"{time.time():.3f}", *map(str, more)]
    call.state._redis.rpush(LIST, " ".join(words))


@task("probe.work")
def work(call: Call, seconds: float) -> str:
    """Work for that long, and hand back at a stop, as a batch does."""
    say(call, "began")
    if call.stopping.wait(seconds):
        say(call, "handed")
        raise HandBack("told to stop")
    say(call, "ended")
    return "done"


@task("probe.wedge")
def wedge(call: Call, seconds: float) -> str:
    """Work for that long and hear nothing."""
    say(call, "began")
    time.sleep(seconds)
    say(call, "ended")
    return "done"


@task("probe.retry")
def retry(call: Call, wait: float, times: int = 1) -> str:
    """Fail so often in a way that is retried after that wait."""
    say(call, "began", call.retries, sorted(call.headers))
    if call.retries < times:
        raise UndeliveredError("not yet", wait)
    return "done"


@task("probe.flaky")
def flaky(call: Call) -> str:
    """Fail once, and be retried as the policy says."""
    say(call, "began", call.retries)
    if not call.retries:
        raise BackendUnavailableError("away")
    return "done"


@task("probe.sockets")
def sockets(call: Call) -> str:
    """Say which connection to the state store this process has."""
    call.state._redis.ping()
    connection = call.state._redis.connection_pool._available_connections[0]
    sock: socket.socket = connection._sock
    say(call, "socket", sock.getsockname()[1])
    time.sleep(0.02)
    return "done"


@task("probe.nothing")
def nothing(call: Call, last: bool = False) -> None:
    """Do nothing, and say so if it is the last."""
    if last:
        say(call, "ended")


@task("probe.meter")
def meter(call: Call) -> None:
    """Say what counting and logging took since this was last asked, in nanoseconds; it is measured from then on."""
    if not _METER:
        _METER.update(metrics=0, logs=0)
        for owner, what, names in (
            (Metric, "metrics", ("inc", "set", "observe")),
            (type(outcome.log), "logs", ("info",)),
        ):
            for name in names:
                setattr(owner, name, _metered(what, getattr(owner, name)))
    say(call, "metered", *_METER.values())
    _METER.update(metrics=0, logs=0)


def _metered(what: str, inner: Callable[..., Any]) -> Callable[..., Any]:
    clock = time.thread_time_ns  # not the wall's: a thread that waits for Python's lock costs nothing

    def timed(*args: Any, **named: Any) -> Any:
        clock()
        asked, begun = clock(), clock()
        try:
            return inner(*args, **named)
        finally:
            # Less what the clock itself takes, which is a third of what the least of these do.
            _METER[what] += clock() - begun - (begun - asked)

    return timed


@task("probe.send")
def send(call: Call, queue: str, count: int = 1) -> str:
    """Send tasks, and say how each went and how long it took."""
    for _ in range(count):
        begun = time.monotonic()
        try:
            call.send("probe.work", queue, [0.0])
            how = "sent"
        except Exception as error:  # noqa: BLE001 # whatever it is: the test wants its name
            how = type(error).__name__
        say(call, how, round(time.monotonic() - begun, 2))
    return "done"


# As many slots for what is urgent, beside those for files, as the registry gives all that are not files.
WORKER = replace(
    workers.WORKERS["general"], name="probe", tasks="probe_tasks", queues=(QUEUE, OTHER), pool=Pool(concurrency=32)
)
FILES = replace(workers.WORKERS["file_processing"], name="files", tasks="probe_files", queues=LOW)
PROFILES = (
    Profile("probe", (WORKER,), WORKER.queues, Pool(concurrency=2), 1),
    Profile("probe_all", (WORKER, FILES), (*LOW, *WORKER.queues), Pool(concurrency=6), 1),
)


def install() -> None:
    """Put the profiles where the application looks for them."""
    module = ModuleType("probe_tasks")
    vars(module).update({name: value for name, value in globals().items() if name in _TASKS})
    sys.modules["probe_tasks"] = module
    sys.modules["probe_files"] = ModuleType("probe_files")
    workers.PROFILES = {**workers.PROFILES, **{profile.name: profile for profile in PROFILES}}
    low = Priority(os.environ.get("PROBE_LOW", "low"))
    classes = dict.fromkeys((QUEUE, OTHER), Priority.DEFAULT) | dict.fromkeys(LOW, low)
    queue_routing.QUEUES = {**queue_routing.QUEUES, **classes}
    queue_routing.ROUTES = (*queue_routing.ROUTES, Route("probe.*", QUEUE, (OTHER, *LOW)))


_TASKS = ("work", "wedge", "retry", "flaky", "sockets", "nothing", "meter", "send")

install()  # in spawned children too, which import this as `__mp_main__`

if __name__ == "__main__":
    celery_app.run(celery_app.worker_app(os.environ.get("PROBE_PROFILE", "probe")), sys.argv[1:])
