"""What goes wrong with workflows. All are WorkerErrors that the same work would meet again."""

from shared.errors import WorkerError


class WorkflowError(WorkerError):
    """Anything that goes wrong with a workflow rather than with what it stands on."""


class DeclarationError(WorkflowError):
    """A workflow that cannot be right; the message has a line for each of its mistakes."""


class UnknownWorkflowError(WorkflowError):
    """No workflow of that name is declared here; the message names the nearest."""


class UnknownRunError(WorkflowError):
    """There is no run of that id, or it ended so long ago that it was forgotten."""


class BorderError(WorkflowError):
    """An input or an output that is not JSON, not of the type that was declared, or too large."""


class RunKeyError(WorkflowError):
    """A run was started with that key before, and with another input."""


class RunCancelledError(WorkflowError):
    """The run was cancelled before it ended."""


class StepError(WorkflowError):
    """A step has failed for good.

    Attributes:
        step: its name.
        attempt: the last one of it, from 1; 0 where it was none of them that failed.
        reason: why, as the step's own error says it.
        index: which item, of a step that runs over a list.
    """

    def __init__(self, step: str, attempt: int, reason: str, index: int | None = None) -> None:
        super().__init__(step, attempt, reason, index)  # all, so that it crosses from one process to another
        self.step, self.attempt, self.reason, self.index = step, attempt, reason, index

    def __str__(self) -> str:
        item = "" if self.index is None else f", item {self.index}"
        attempt = f" at attempt {self.attempt}" if self.attempt else ""
        return f"step {self.step}{item} failed{attempt}: {self.reason}" if self.step else self.reason


class RunFailedError(StepError):
    """A run has failed; the step that did it first, by their order in the declaration.

    Attributes:
        others: what else failed in it.
    """

    others: tuple[StepError, ...] = ()
