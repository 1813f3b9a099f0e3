"""One attempt at a step, and what decides whether there is one: the same for every engine."""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from monitoring.prometheus_metrics import WORKFLOW_STEP_SECONDS
from shared.errors import CircuitOpenError, DeadlineExceededError, TransientError, UnauthorizedError, WorkerError
from shared.logging_utils import inner_context
from shared.retry_utils import jittered
from shared.task import tried
from shared.workflows import borders
from shared.workflows.context import TaskContext
from shared.workflows.declaration import Declaration
from shared.workflows.errors import BorderError, WorkflowError
from shared.workflows.shape import Step, StepState

LONGEST_WAIT = 60.0
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Limits:
    """What may cross a border.

    Attributes:
        output: bytes of one input or output.
        items: of a list that a step runs over.
    """

    output: int = 8 * 1024 * 1024
    items: int = 10_000


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a step whose parents have ended.

    Attributes:
        state: QUEUED, or what it has ended as without having run.
        items: what it runs over, each as JSON text, if it runs over a list.
        reason: why it has failed.
    """

    state: StepState
    items: tuple[str, ...] | None = None
    reason: str | None = None


def decide(declaration: Declaration, context: TaskContext, limits: Limits) -> Decision:
    """Whether a step runs, and over what."""
    verdict = context.shape.verdict(context.step, context.parents)
    if verdict is not StepState.QUEUED:
        return Decision(verdict)
    decided, error = tried(lambda: _decide(declaration, context, limits))
    if decided is None:
        if error is not None and passing(error):
            raise error
        return Decision(StepState.FAILED, reason=reason_of(error))
    return decided


def _decide(declaration: Declaration, context: TaskContext, limits: Limits) -> Decision:
    method = _method(declaration, context)
    if method.when is not None and not method.when(context):
        return Decision(StepState.SKIPPED)
    over = context.step.map_over
    if over is None:
        return Decision(StepState.QUEUED)
    if context.parents.get(over[0]) is StepState.SKIPPED:
        return Decision(StepState.QUEUED, items=())
    return Decision(StepState.QUEUED, items=_items(context, over, limits.items))


def _items(context: TaskContext, over: tuple[str, str], most: int) -> tuple[str, ...]:
    parent, name = over
    found = json.loads(context.seat.output(parent) or "null")
    what = f"the output of {parent}"
    if name:
        if not isinstance(found, dict) or name not in found:
            raise BorderError(f"{what} has no field {name!r}, over which step {context.step.name} runs")
        found, what = found[name], f"{name} in {what}"
    if not isinstance(found, list):
        raise BorderError(f"{what} is no list, over which step {context.step.name} could run")
    if len(found) > most:
        raise BorderError(f"{what} has {len(found):,} items, and {most:,} may be (WORKFLOW_MOST_ITEMS)")
    return tuple(borders.utf8(json.dumps(item, ensure_ascii=False)) for item in found)


def carry_out(declaration: Declaration, context: TaskContext, input_text: str, limits: Limits) -> str:
    """Make one attempt.

    Returns: the output as JSON text.

    Raises:
        BorderError: input or output are not as declared.
        whatever the step raises.
    """
    method = _method(declaration, context)
    name = context.step.name
    value = borders.from_text(input_text, method.takes, f"the input of step {name}")
    about = {"workflow": context.shape.name, "run_id": context.run_id, "step": name, "attempt": context.attempt}
    item = {} if context.index is None else {"item": context.index}
    begun = time.monotonic()
    with inner_context(**about, **item):
        try:
            with _Contained():
                given = method.function(declaration.owner(), value, context)
        finally:
            seconds = time.monotonic() - begun
            WORKFLOW_STEP_SECONDS.observe(seconds, workflow=context.shape.name, step=name)
    return borders.to_text(given, method.gives, f"the output of step {name}", limits.output)


class _Contained(AbstractContextManager[None]):
    """What a step raises that is no error would end what it runs in: a thread of a pool, or the process."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None and not issubclass(kind, Exception):
            raise WorkflowError(
                f"it raised {kind.__name__}, which would end what it runs in; raise an error"
            ) from error


def _method(declaration: Declaration, context: TaskContext) -> Any:
    method = declaration.methods.get(context.step.name)
    if method is None:
        raise WorkflowError(f"workflow {declaration.name} has no step {context.step.name} any more")
    return method


def passing(error: Exception) -> bool:
    """Whether an error says that something is away for a while: no attempt is used up by it."""
    return isinstance(error, TransientError | UnauthorizedError | CircuitOpenError)


def final(error: Exception) -> bool:
    """Whether another attempt would end the same way."""
    return isinstance(error, WorkflowError)


def wait_after(step: Step, attempt: int) -> float:
    """Seconds between that attempt at a step and the next."""
    return jittered(step.backoff, attempt, LONGEST_WAIT)


def late(step: Step) -> DeadlineExceededError:
    """What becomes of an attempt that has not ended in time, whatever it says then."""
    return DeadlineExceededError(f"it took longer than {step.timeout:g} s")


def reason_of(error: Exception | None) -> str:
    """An error in words, cut; those that are not ours with their class."""
    kind = type(error).__name__
    words, _ = tried(lambda: str(error))  # which is code of the step's own error
    said = words if words and isinstance(error, WorkerError) else f"{kind}: {words or ''}".rstrip(": ")
    return borders.utf8(said[:_LONGEST_REASON])


def joined(step: str, outputs: Sequence[str], limits: Limits) -> str:
    """The output of a step that ran over a list, from those of its items in order.

    Raises:
        BorderError: they are too large together.
    """
    text = f"[{', '.join(outputs)}]"
    borders.bounded(text, f"the output of step {step}, its {len(outputs):,} items together,", limits.output)
    return text
