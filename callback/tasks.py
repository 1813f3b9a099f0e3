"""The tasks of the callback worker."""

from typing import Any

from callback.finalize import finalize
from shared.call import Call, bury, note_unknown
from shared.claims import Claim
from shared.models import Callback, parse
from shared.task import task


def _work(call: Call, /, *_args: Any, **kwargs: Any) -> Claim | None:
    """An execution ends once, whoever says so and how often."""
    execution_id = kwargs.get("execution_id")
    return call.state.claim(execution_id, "callback") if isinstance(execution_id, str) and execution_id else None


@task(
    "process_batch_callback",
    "process_batch_callback_api",
    "workflow_manager.workflow_v2.file_execution_tasks.process_batch_callback",
    finalizer=bury,  # for people; the end of the execution is left to the reaper
    work=_work,
)
def process_batch_callback(call: Call, /, results: list[Any] | None = None, **kwargs: Any) -> dict[str, Any]:
    """End an execution from the results of its batches. Payload: contract section 1.

    Nobody comes after the callback, so it is patient.
    """
    note_unknown(Callback, kwargs)
    callback = parse(Callback, {**kwargs, "results": results or []})
    return finalize(call, callback)
