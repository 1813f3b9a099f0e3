"""The same task, chain and chord twice: as bare Celery tasks, and as workflows. Worker processes import it.

`BENCHMARK_BROKER` and `BENCHMARK_RESULTS` are the addresses of the bare application.
"""

import os
from typing import Any

from celery import Celery, chain, chord, signals

from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow

ITEMS = 20
QUEUE = "benchmark_bare"
_published: list[str] = []


@signals.after_task_publish.connect(weak=False)  # type: ignore[untyped-decorator] # Celery ships no types
def _count(sender: str = "", **_: Any) -> None:
    _published.append(sender)


def published() -> int:
    """How many messages this process has published."""
    return len(_published)


def make_bare() -> Any:
    """Celery as it comes, with what workflows promise too where it has that: late acknowledgement, and confirms."""
    broker = os.environ["BENCHMARK_BROKER"]
    app = Celery("bare", broker=broker, backend=os.environ["BENCHMARK_RESULTS"], fixups=[], set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=False,
        worker_prefetch_multiplier=1,
        broker_transport_options={"confirm_publish": True} if broker.startswith("amqp") else {},
        broker_connection_retry_on_startup=True,
    )
    for function in (step, split, page, join, asked):
        app.task(function, name=function.__name__, shared=False)
    return app


def step(given: dict[str, int]) -> dict[str, int]:
    return {"value": given["value"] + 1}


def split(given: dict[str, int]) -> dict[str, Any]:
    return {"pages": list(range(given["value"], given["value"] + ITEMS))}


def page(given: dict[str, Any], index: int) -> dict[str, int]:
    return {"value": given["pages"][index] * 2}


def join(pages: list[dict[str, int]]) -> dict[str, int]:
    return {"value": sum(one["value"] for one in pages)}


def asked() -> int:
    return published()


def bare_lone(app: Any) -> Any:
    return app.tasks["step"].s({"value": 0})


def bare_chain(app: Any) -> Any:
    first, rest = app.tasks["step"].s({"value": 0}), [app.tasks["step"].s() for _ in range(4)]
    return chain(first, *rest, app=app)


def bare_chord(app: Any) -> Any:
    header = [app.tasks["page"].s(index) for index in range(ITEMS)]
    return chain(app.tasks["split"].s({"value": 1}), chord(header, app.tasks["join"].s(), app=app), app=app)


@workflow(name="lone")
class Lone(BaseWorkflow):
    @task()
    def last(self, input_data: dict[str, int], _ctx: TaskContext) -> dict[str, int]:
        return step(input_data)


@workflow(name="chain")
class Chain(BaseWorkflow):
    @task()
    def one(self, input_data: dict[str, int], _ctx: TaskContext) -> dict[str, int]:
        return step(input_data)

    @task(parents=["one"])
    def two(self, _input_data: dict[str, int], ctx: TaskContext) -> dict[str, int]:
        return step(ctx.task_output("one"))

    @task(parents=["two"])
    def three(self, _input_data: dict[str, int], ctx: TaskContext) -> dict[str, int]:
        return step(ctx.task_output("two"))

    @task(parents=["three"])
    def four(self, _input_data: dict[str, int], ctx: TaskContext) -> dict[str, int]:
        return step(ctx.task_output("three"))

    @task(parents=["four"])
    def last(self, _input_data: dict[str, int], ctx: TaskContext) -> dict[str, int]:
        return step(ctx.task_output("four"))


@workflow(name="chord")
class Chord(BaseWorkflow):
    @task()
    def split(self, input_data: dict[str, int], _ctx: TaskContext) -> dict[str, Any]:
        return split(input_data)

    @task(parents=["split"], map_over="pages")
    def page(self, number: int, _ctx: TaskContext) -> dict[str, int]:
        return {"value": number * 2}

    @task(parents=["page"])
    def last(self, _input_data: dict[str, int], ctx: TaskContext) -> dict[str, int]:
        return join(ctx.task_output("page"))


@workflow(name="asked")
class Asked(BaseWorkflow):
    @task()
    def last(self, _input_data: None, _ctx: TaskContext) -> int:
        return published()


if "BENCHMARK_BROKER" in os.environ:
    bare = make_bare()
