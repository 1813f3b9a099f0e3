"""Workflows that tests run in processes of their own: WORKFLOW_MODULES=tests.workflows_for_tests."""

import time
from pathlib import Path
from typing import Any

from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow


@workflow(name="document-processing", timeout_minutes=5)
class DocumentProcessing(BaseWorkflow):
    """Reads the pages of a document.

    And more, which a list has no place for.
    """

    @task(timeout_minutes=1)
    def fetch(self, input_data: dict[str, Any], _ctx: TaskContext) -> dict[str, Any]:
        return {"pages": input_data["pages"]}

    @task(name="read-page", parents=["fetch"], map_over="pages", retries=1, backoff_seconds=0.01, timeout_minutes=0.5)
    def read_page(self, input_data: str, ctx: TaskContext) -> str:
        if input_data == "smudged" and ctx.attempt == 1:
            raise ValueError("the page\nis smudged")
        return input_data.upper()

    @task(parents=["fetch"], when=lambda ctx: bool(ctx.workflow_input.get("classify")))
    def classify(self, _input: Any, _ctx: TaskContext) -> str:
        return "invoice"

    @task(parents=["read-page", "classify"])
    def report(self, _input: Any, ctx: TaskContext) -> dict[str, Any]:
        ctx.progress(1, 2, "half of it")
        return {"text": " ".join(ctx.task_output("read-page")), "class": ctx.task_output("classify")}


@workflow(name="failing")
class Failing(BaseWorkflow):
    """Fails at its second attempt for good."""

    @task(retries=1, backoff_seconds=0.01)
    def breaks(self, _input: Any, ctx: TaskContext) -> None:
        raise ValueError(f"broken {ctx.attempt}")

    @task(parents=["breaks"])
    def never(self, _input: Any, _ctx: TaskContext) -> None:
        """Is not run."""

    def on_failure(self, _input: Any, _ctx: TaskContext) -> None:
        """Is told."""


@workflow(name="waiting")
class Waiting(BaseWorkflow):
    """Goes on until a file is there."""

    @task()
    def wait(self, input_data: dict[str, str], ctx: TaskContext) -> str:
        Path(input_data["begun"]).touch()
        while not Path(input_data["until"]).exists() and not ctx.cancelled:
            time.sleep(0.02)
        return "seen"
