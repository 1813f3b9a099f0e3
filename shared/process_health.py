"""What a worker process says of itself over HTTP: /livez, /readyz, /health, /health/quick, /version, /metrics.

Liveness touches nothing outside, and a broker that is away leaves it green: the process is at it, and a restart of the
whole fleet would make nothing better. Readiness asks what the process needs, over fresh connections.
https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from billiard.process import current_process
from celery import signals
from celery.worker import state

from monitoring import prometheus_metrics as metrics
from monitoring.process import memory_share, sums, usage
from monitoring.registry import KEPT, MAIN
from monitoring.server import Answer, HealthServer, Page, as_json
from monitoring.watched import Watched
from shared import task_metrics
from shared.call import WorkerApp
from shared.health import CHECKS, Finding, Verdict, look
from shared.remote_control import circuits, running
from shared.variables import announce
from shared.versions import versions

PAGES = {
    "/livez": "200 while the loop that takes messages goes round, 503 when it was not seen to for 25 s. Touches "
    "nothing outside, and stays 200 while the broker is away: this one is to restart a process by.",
    "/readyz": "200 if backend (with the key), broker and state store answer, and the process takes messages and was "
    "not told to stop, else 503. Each is asked over a fresh connection, at most every 10 s, for at most 4 s. JSON: "
    "what each found.",
    "/health": "Both, as a report (JSON): node, profile, pool, queues, uptime, versions, slots, tasks at work with "
    "their age, circuits, checks. 503 if one of the two is.",
    "/health/quick": "The same without the checks: nobody else is asked. 503 if the loop hangs or the process stops.",
    "/version": "Versions of this package, of Celery and of Python (JSON).",
    "/metrics": "What Prometheus reads, of all processes of the pool; OpenMetrics with exemplars to who asks for it.",
}
_CHECK_SECONDS, _KEPT_SECONDS = 4.0, 10.0


def install(app: WorkerApp) -> None:
    """Count, and answer over HTTP, from before the process connects to anything until it ends."""
    served: list[HealthServer] = []
    task_metrics.install()

    def begin(instance: Any, **_: Any) -> None:
        served.extend(_listening(app, ProcessHealth(app, instance)))
        folder = Path(tempfile.mkdtemp(prefix="workers-metrics-")) if pool_of(instance) == "prefork" else None
        if folder is not None:
            announce("PROMETHEUS_MULTIPROC_DIR", str(folder))
        KEPT.begin(instance.hostname, folder)
        task_metrics.begin(app.profile.queues)
        for server in served:
            server.start()

    def join(**_: Any) -> None:
        KEPT.join(current_process().index)
        for server in served:
            server.leave()

    def end(**_: Any) -> None:
        if KEPT.folder is not None:
            shutil.rmtree(KEPT.folder, ignore_errors=True)

    signals.celeryd_after_setup.connect(begin, weak=False)
    signals.worker_process_init.connect(join, weak=False)
    signals.worker_shutdown.connect(end, weak=False)


def _listening(app: WorkerApp, health: "ProcessHealth") -> Iterator[HealthServer]:
    """The server, before there is anything to be cleaned up."""
    port, host = app.profile.health_port, app.resources.settings.health_host
    try:
        if port:
            yield HealthServer(host, port, health.pages())
    except OSError as error:
        _refuse(app.profile.name, f"{host}:{port}: {error.strerror}")


def _refuse(profile: str, why: str) -> NoReturn:
    """End the process. Not by an exception: Celery would stop a worker that has not begun, and end with 0."""
    remedy = f"set {profile.upper()}_HEALTH_PORT to a free port, or to 0 for none"
    print(f"workers: {profile} cannot start:\nits health server cannot listen on {why}; {remedy}", file=sys.stderr)  # noqa: T201 # as every refusal of a start
    sys.stderr.flush()
    os._exit(os.EX_CONFIG)


def pool_of(worker: Any) -> str:
    """What kind of pool a worker has, by the names of the registry; whoever said it."""
    kind: str = worker.pool_cls.__module__.rpartition(".")[2]
    return {"thread": "threads"}.get(kind, kind)


class ProcessHealth:
    """The health of one worker process. Under prefork it is the main process, which knows of its children.

    Args:
        app: the application.
        worker: Celery's worker, before its pool is made.
    """

    def __init__(self, app: WorkerApp, worker: Any) -> None:
        self._app, self._worker, self._pool = app, worker, pool_of(worker)
        self._begun = time.time()
        settings = app.resources.settings
        self._checks: dict[str, Watched[list[Finding]]] = {
            name: Watched(partial(_look, settings, name), _CHECK_SECONDS, _KEPT_SECONDS) for name in CHECKS
        }
        self._read()

    def pages(self) -> Mapping[str, Page]:
        """The pages by their paths."""
        return {
            "/livez": lambda _: self.live(),
            "/readyz": lambda _: self.ready(),
            "/health": lambda _: self.report(quick=False),
            "/health/quick": lambda _: self.report(quick=True),
            "/version": lambda _: as_json(versions()),
            "/metrics": self.metrics,
        }

    @property
    def alive(self) -> bool:
        """Whether the loop goes round. One that ends has left it, and has a clock for that; a solo pool works in it."""
        resources = self._app.resources
        return resources.heartbeat.young or resources.stopping.is_set() or self._pool == "solo"

    @property
    def _consumes(self) -> bool:
        """Whether Celery has begun to take messages from the broker that it is connected to."""
        return getattr(getattr(self._worker, "consumer", None), "task_consumer", None) is not None

    def live(self) -> Answer:
        """Whether to let the process live."""
        age = round(self._app.resources.heartbeat.age, 1)
        return as_json({"status": "alive" if self.alive else "hung", "loop_seen_seconds_ago": age}, ok=self.alive)

    def ready(self) -> Answer:
        """Whether it works: what it needs answers, it consumes its queues, and it has not been told to stop."""
        checks = self._asked()
        well = all(one["ok"] for one in checks.values()) and not self._app.resources.stopping.is_set()
        ok = well and self._consumes
        return as_json({"status": self._status(ok), "checks": checks}, ok=ok)

    def report(self, *, quick: bool) -> Answer:
        """All that is known; `quick` asks nobody."""
        resources, profile = self._app.resources, self._app.profile
        checks = {} if quick else self._asked()
        ok = self.alive and all(one["ok"] for one in checks.values()) and not resources.stopping.is_set()
        said = {
            "status": self._status(ok),
            "node": KEPT.node,
            "profile": profile.name,
            "pool": self._pool,
            "queues": list(self._app.amqp.queues.consume_from),
            "uptime_seconds": round(time.time() - self._begun, 1),
            "loop_seen_seconds_ago": round(resources.heartbeat.age, 1),
            **versions(),
            "slots": resources.slots,
            "running": running(),
            "circuits": circuits(),
            "checks": checks,
        }
        return as_json(said, ok=ok)

    def metrics(self, accept: str) -> Answer:
        """What Prometheus reads."""
        for check in self._checks.values():
            check.ask()  # and not wait: what was found last is what is shown
        if KEPT.folder is not None:
            living = {MAIN, *(f"child{child.index}" for child in self._children())}
            KEPT.drop_gauges(lambda process: process not in living)
        body, kind = KEPT.exposition(accept)
        return Answer(body, kind=kind)

    def _status(self, ok: bool) -> str:
        if self._app.resources.stopping.is_set():
            return "stopping"
        return "ready" if ok else "not ready"

    def _asked(self) -> dict[str, dict[str, Any]]:
        for check in self._checks.values():
            check.ask()
        return {name: self._said(check.found()) for name, check in self._checks.items()}

    def _said(self, findings: list[Finding] | None) -> dict[str, Any]:
        if findings is None:
            return {"ok": False, "found": f"no answer within {_CHECK_SECONDS:g} s"}
        shown = findings[0]
        said = {"ok": _answers(findings), "found": self._app.resources.settings.hide(shown.found)}
        return said | ({"remedy": shown.remedy} if shown.remedy else {})

    def _children(self) -> list[Any]:
        """Of a prefork pool, as in `shared/drain.py`."""
        pool = getattr(getattr(self._worker, "pool", None), "_pool", None)
        return list(getattr(pool, "_pool", ()))

    def _pids(self) -> list[int]:
        return [os.getpid(), *(child.pid for child in self._children() if child.pid)]

    def _read(self) -> None:
        """What is read whenever somebody asks for the metrics."""
        resources, profile = self._app.resources, self._app.profile
        node = (self._worker.hostname,)
        ran = versions()
        build = (ran["version"], profile.name, self._pool, ran["celery"], ran["python"])
        metrics.BUILD.read(lambda: {build: 1})
        metrics.POOL_SLOTS.read(lambda: {node: resources.slots})
        metrics.POOL_SLOTS_BUSY.read(lambda: {node: len(state.active_requests)})
        metrics.HEARTBEAT.read(lambda: {node: resources.heartbeat.age})
        metrics.CHECKS.read(self._lately)
        metrics.MEMORY_SHARE.read(lambda: {(): memory_share()})
        for metric in (metrics.CPU, metrics.MEMORY, metrics.THREADS, metrics.DESCRIPTORS):
            metric.read(partial(self._sum, metric.name))
        for metric in (metrics.MOST_DESCRIPTORS, metrics.STARTED):
            metric.read(partial(self._own, metric.name))

    def _sum(self, name: str) -> dict[tuple[str, ...], float]:
        found = sums(self._pids(), name)[name]
        if name == metrics.CPU.name:  # what ended children took stays counted, or their end would be a step back
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            found += ended.ru_utime + ended.ru_stime
        return {(): found}

    def _own(self, name: str) -> dict[tuple[str, ...], float]:
        return {(): usage(os.getpid())[name]}

    def _lately(self) -> dict[tuple[str, ...], float]:
        found = ((name, check.last()) for name, check in self._checks.items())
        return {(name,): float(_answers(findings)) for name, findings in found if findings is not None}


def _look(settings: Any, name: str) -> list[Finding]:
    return list(look(settings, [name]))


def _answers(findings: Iterable[Finding]) -> bool:
    """Whether it can be worked with. That it may lose what it keeps is for `workers check` to say."""
    return all(finding.verdict is not Verdict.WRONG for finding in findings if finding.what in CHECKS)
