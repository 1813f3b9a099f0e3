"""The fold from batch results to what an execution's end says: pure functions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import PayloadError
from shared.models import BatchResult, Counts, Status, parse


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an execution ends."""

    status: Status
    counts: Counts
    message: str | None


def verdict(results: Iterable[Any], total_files: int, failure: str | None, notes: Sequence[str] = ()) -> Verdict:
    """COMPLETED if any file succeeded or there were none, ERROR if all failed (contract section 4).

    Args:
        results: the batches' results; one that is not a batch result counts as if it were missing.
        total_files: how many files the execution has. Files without a result count as failed.
        failure: why the execution never came to its files, if so.
        notes: what else its owner should read.
    """
    batches = list(_batches(results))
    ended = sum(batch.successful_files + batch.failed_files for batch in batches)
    total = total_files or ended
    successful = min(sum(batch.successful_files for batch in batches), total)
    missing = max(0, total - ended)
    counts = Counts(total, successful, total - successful)
    if failure is not None:
        return Verdict(Status.ERROR, counts, failure)
    status = Status.COMPLETED if successful or not counts.total_files else Status.ERROR
    message = "; ".join([*_reasons(status, counts, missing, batches), *notes])
    return Verdict(status, counts, message or None)


def _batches(results: Iterable[Any]) -> Iterable[BatchResult]:
    for result in results:
        try:
            yield parse(BatchResult, result)
        except PayloadError:
            continue


def _reasons(status: Status, counts: Counts, missing: int, batches: list[BatchResult]) -> list[str]:
    said = []
    if missing:
        said.append(f"{missing} of {counts.total_files} files have no result and count as failed")
    if status is Status.ERROR:
        first = next((f"{name}: {error}" for batch in batches for name, error in batch.errors.items()), None)
        said.append(f"all {counts.total_files} files failed" + (f"; {first}" if first else ""))
    return said
