"""One document through the backend's tools as a workflow: extract, analyse each page, merge, store.

A run is one document, and an execution of one file that no message was sent for (`/sandbox/staged/`): so the run alone
writes its statuses. Every effect may be met again by a later attempt: rows are got or created, tools run once for each
row, and what is terminal stays as it is.
"""

import random
import time
from typing import Any

from pydantic import BaseModel, Field

from shared.api_client import OrganizationAPI
from shared.backend_models import FileExecution, FileRun
from shared.errors import BackendBusyError, NotFoundError
from shared.models import TERMINAL, Counts, FileData, FileHash, Payload, Status, parse
from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow
from shared.workflows.errors import StepError, WorkflowError

_PARTING = "\f"  # of pages, in a text of the tools
_SHORTEST_POLL = 0.1
_LONGEST_POLL = 10.0  # contract section 3
_POLL_GROWTH = 1.5
_LONGEST_PAUSE = 1.0  # between two looks at whether the step is still waited for
_LONGEST_NAME = 240  # of 255, with the number of a page behind it


class Document(BaseModel):
    """What a run takes: a document, and the execution that was made for it alone. `file` is as messages tell of it."""

    execution_id: str
    workflow_id: str
    file: FileHash


class Page(BaseModel):
    """One page, from 1."""

    number: int
    text: str = Field(repr=False)


class Extracted(BaseModel):
    """What the tools found in a document.

    Attributes:
        pages: as its text has them.
        counted: how many the format counts, which may be others: the sheets of a workbook.
        mime_type: what its content is.
        metadata: what the document says of itself.
        said: what the tools say of their run.
    """

    pages: list[Page]
    counted: int
    mime_type: str | None
    metadata: dict[str, Any]
    said: dict[str, Any]


class Analysis(Payload):
    """What the tools say of one page."""

    page: int
    words: int
    characters: int


class Result(Payload):
    """What the tools say of a whole document, and what a run gives: `sandbox/extraction/tool.py` has its shape."""

    text: str = Field(repr=False)
    mime_type: str | None = None
    pages: int
    words: int
    characters: int
    metadata: dict[str, Any]


@workflow(name="document-processing")
class DocumentProcessing(BaseWorkflow):
    """Takes a `Document`, gives its `Result` as the output of `store`.

    A document that cannot be read fails in `extract`, with the reason that the tools give.
    """

    @task(name="extract", timeout_minutes=60, retries=2)
    def extract(self, document: Document, ctx: TaskContext) -> Extracted:
        """The document's text, page by page, and the facts about it."""
        client = ctx.client
        execution = client.execution(document.execution_id).execution
        if execution.is_terminal:
            raise WorkflowError(f"the execution is {execution.status} already")
        client.start_execution(document.execution_id, 1)
        _, run = _executed(ctx, document, document.file)
        found = parse(Result, run.result)
        pages = [Page(number=number, text=text) for number, text in enumerate(found.text.split(_PARTING), 1)]
        ctx.progress(len(pages), len(pages), f"pages: {len(pages)}")
        return Extracted(
            pages=pages,
            counted=found.pages,
            mime_type=found.mime_type,
            metadata=found.metadata,
            said=run.metadata or {},
        )

    @task(name="analyse", parents=["extract"], map_over="pages", timeout_minutes=60, retries=2)
    def analyse(self, page: Page, ctx: TaskContext) -> Analysis:
        """What the tools say of a page, which has a row of its own in the execution."""
        document = Document.model_validate(ctx.workflow_input)
        row, run = _executed(ctx, document, _page_of(document.file, page.number), page.number)
        if row.status not in TERMINAL:
            ctx.client.file_status(row.id, Status.COMPLETED)
        return parse(Analysis, run.result)

    @task(name="merge", parents=["extract", "analyse"])
    def merge(self, _document: Document, ctx: TaskContext) -> Result:
        """The pages as one document again."""
        extracted: Extracted = ctx.task_output("extract")
        analyses: list[Analysis] = ctx.task_output("analyse")
        return Result(
            text=_PARTING.join(page.text for page in extracted.pages),
            mime_type=extracted.mime_type,
            pages=extracted.counted,
            words=sum(analysis.words for analysis in analyses),
            characters=sum(analysis.characters for analysis in analyses) + len(_PARTING) * (len(extracted.pages) - 1),
            metadata=extracted.metadata,
        )

    @task(name="store", parents=["extract", "merge"], retries=5)
    def store(self, document: Document, ctx: TaskContext) -> Result:
        """History, the file's status, and last the execution's with its counts: who finds that finds them all."""
        client = ctx.client
        result: Result = ctx.task_output("merge")
        execution = client.execution(document.execution_id).execution
        if execution.is_terminal and execution.status != Status.COMPLETED:
            raise WorkflowError(f"the execution is {execution.status} already")
        if not execution.is_terminal:
            run = FileRun(status=Status.COMPLETED, result=result.model_dump(), metadata=ctx.task_output("extract").said)
            if document.file.file_hash:
                client.remember_file(document.workflow_id, document.file, run, is_api=_is_api(document.file))
            row = client.file_execution(document.execution_id, document.workflow_id, document.file)
            _end_file(client, row, Status.COMPLETED)
            client.end_execution(document.execution_id, Status.COMPLETED, Counts(1, 1, 0), None)
        return result

    @task(retries=5)
    def on_failure(self, document: Document, ctx: TaskContext) -> None:
        """The file, those of its pages that have not ended, and then the execution are errors, for the first reason."""
        client, reason = ctx.client, _reason(ctx.failures[0])
        client.file_execution(document.execution_id, document.workflow_id, document.file)
        for row in client.file_executions(document.execution_id):
            _end_file(client, row, Status.ERROR, reason)
        if not client.execution(document.execution_id).execution.is_terminal:
            client.end_execution(document.execution_id, Status.ERROR, Counts(1, 0, 1), reason)


def _page_of(file: FileHash, number: int) -> FileHash:
    """The page as a file of its own: rows are told apart by name or by path, as their source has it."""
    mark = f"#page={number}"
    path = file.file_path and f"{file.file_path}{mark}"
    return file.model_copy(update={"file_name": f"{file.file_name[:_LONGEST_NAME]}{mark}", "file_path": path})


def _executed(
    ctx: TaskContext, document: Document, file: FileHash, page: int | None = None
) -> tuple[FileExecution, FileRun]:
    """The row of a file, or of a page of it, and how the tools ended with it.

    Raises:
        WorkflowError: in error, and would again.
    """
    row = ctx.client.file_execution(document.execution_id, document.workflow_id, file)
    data = FileData(
        workflow_id=document.workflow_id,
        execution_id=document.execution_id,
        organization_id=ctx.client.organization_id,
        custom_data=None if page is None else {"page": page},
    )
    run = _run(ctx, row.id, data, file)
    if not run.succeeded:
        raise WorkflowError(run.error or "the tools ended without a result and without a reason")
    return row, run


def _run(ctx: TaskContext, key: str, data: FileData, file: FileHash) -> FileRun:
    run: FileRun | None = None
    wait = 0.0
    while run is None or run.running:
        _pause(ctx, wait)
        try:
            run = ctx.client.execute_file(key, data, file) if run is None else ctx.client.file_run(key)
            wait = min(max(run.poll_after, wait * _POLL_GROWTH, _SHORTEST_POLL), _LONGEST_POLL)
        except NotFoundError:
            if run is None:
                raise
            run = None  # never accepted: send it again
        except BackendBusyError as busy:
            asked = min(wait * _POLL_GROWTH, _LONGEST_POLL) if busy.retry_after is None else busy.retry_after
            wait = asked + random.uniform(_SHORTEST_POLL, 1)  # noqa: S311 # spreads load, guards nothing
    return run


def _pause(ctx: TaskContext, seconds: float) -> None:
    until = time.monotonic() + seconds
    ctx.checkpoint()
    while (left := until - time.monotonic()) > 0:
        time.sleep(ctx.deadline.cut(min(left, _LONGEST_PAUSE)))
        ctx.checkpoint()


def _end_file(client: OrganizationAPI, row: FileExecution, status: Status, reason: str | None = None) -> None:
    if row.status not in TERMINAL:
        client.file_status(row.id, status, reason)


def _is_api(file: FileHash) -> bool:
    return file.source_connection_type == "API"


def _reason(failure: StepError) -> str:
    return failure.reason if failure.index is None else f"page {failure.index + 1}: {failure.reason}"
