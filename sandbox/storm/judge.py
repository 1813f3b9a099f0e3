"""The judge of a storm: what is there when it is quiet again, against what the workers promise. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TERMINAL = frozenset({"COMPLETED", "STOPPED", "ERROR"})
# A key that is to guard against late copies for a while goes within this time; the state of an execution that was
# forgotten would stay for longer.
TOMBSTONE_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is.

    Attributes:
        sent: by execution that the backend confirmed, the number of its files.
        executions: all that the backend knows, as `/sandbox/evidence` gives them.
        results: by execution, each pushed result: the file execution it was pushed for, and the document it is of.
        queues: messages left, by queue, those that somebody holds included.
        keys: what is left in the state store but results: seconds to live by key, -1 for ever.
        notifications: `/sandbox/stats` of buffered events: `{enqueued, duplicates, ...}`.
        webhooks: the same of what the receiver got, `{deliveries, keys, repeated}`; None where there is none.
        told: by execution that the receiver heard of, under how many keys; None where there is none.
    """

    sent: Mapping[str, int]
    executions: Sequence[Mapping[str, Any]] = ()
    results: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, int] = field(default_factory=dict)
    notifications: Mapping[str, int] = field(default_factory=dict)
    webhooks: Mapping[str, int] | None = None
    told: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept: `subject` is an execution, a queue or a key."""

    subject: str
    what: str


def judge(evidence: Evidence) -> list[Violation]:
    """Every violation there is."""
    return [*_executions(evidence), *_leftovers(evidence), *_notifications(evidence)]


def is_open(execution: Mapping[str, Any], sent: Mapping[str, int]) -> bool:
    """Whether an execution is still to end. One that its user was not told of may have been told to nobody: the backend
    died between writing it down and sending its message."""
    nobody_knows = execution["id"] not in sent and execution["status"] == "PENDING" and not execution["files"]
    return execution["status"] not in TERMINAL and not nobody_knows


def _executions(evidence: Evidence) -> Iterator[Violation]:
    known = {execution["id"] for execution in evidence.executions}
    for execution_id in evidence.sent.keys() - known:
        yield Violation(execution_id, "the backend does not know it any more")
    for execution in evidence.executions:
        found = [*_status(execution, evidence.sent), *_files(execution), *_effects(execution, evidence.results)]
        yield from (Violation(execution["id"], what) for what in found)


def _status(execution: Mapping[str, Any], sent: Mapping[str, int]) -> Iterator[str]:
    if is_open(execution, sent):
        done = sum(file["status"] in TERMINAL for file in execution["files"])
        yield f"is {execution['status']}, with {done} of {execution['total_files']} files at their end"
        return
    # A user who got an error, or no answer, expects nothing; one that went on all the same is held to the rest.
    files = sent.get(execution["id"])
    if files is None:
        return
    if execution["status"] != "COMPLETED":
        yield f"is {execution['status']}: {execution['error_message'] or 'no reason is given'}"
    total, good, bad = (execution[f"{name}_files"] for name in ("total", "successful", "failed"))
    if total != files:
        yield f"counts {total} files of {files} that were sent"
    if (good or 0) + (bad or 0) != total:
        yield f"counts {good} successful and {bad} failed of {total} files"
    if execution["pipeline_status"] not in {None, "SUCCESS"}:
        yield f"left its pipeline {execution['pipeline_status']}"


def _files(execution: Mapping[str, Any]) -> Iterator[str]:
    files = execution["files"]
    if execution["status"] == "COMPLETED" and len(files) != execution["total_files"]:
        yield f"has {len(files)} rows for {execution['total_files']} files"
    for name, rows in Counter(file["name"] for file in files).items():
        if rows > 1:
            yield f"has {rows} rows for the file {name}"
    if execution["status"] not in TERMINAL:
        return
    for file in files:
        if file["status"] != "COMPLETED":
            yield f"its file {file['name']} is {file['status'] or 'new'}: {file['error'] or 'no reason is given'}"


def _effects(execution: Mapping[str, Any], results: Mapping[str, Sequence[tuple[str, str]]]) -> Iterator[str]:
    """Tools, rows and results: each once for a file that is COMPLETED, and never more."""
    api = execution["kind"] == "API"
    pushed = results.get(execution["id"], ())
    times = Counter(file_id for file_id, _ in pushed)
    names = {file["id"]: file["name"] for file in execution["files"]}
    for file in execution["files"]:
        counts = {"tool runs": file["runs"] - file["restarts"]}
        counts |= {"results": times[file["id"]]} if api else {"rows at the destination": file["rows"]}
        for what, count in counts.items():
            if count > 1 or (count < 1 and file["status"] == "COMPLETED"):
                yield f"its file {file['name']} has {count} {what}"
    for file_id, document in pushed:
        if names.get(file_id) != document:
            yield f"its file {names.get(file_id, file_id)} has the result of {document}"


def _leftovers(evidence: Evidence) -> Iterator[Violation]:
    for queue, messages in evidence.queues.items():
        if messages:
            yield Violation(queue, f"{messages} messages are left")
    going_on = [execution["id"] for execution in evidence.executions if is_open(execution, evidence.sent)]
    for key, seconds in evidence.keys.items():
        named = any(execution_id in key for execution_id in going_on)
        if not named and not 0 <= seconds <= TOMBSTONE_SECONDS:
            lives = "for ever" if seconds < 0 else f"for {seconds} s"
            yield Violation(key, f"is left in the state store, {lives}")


def _notifications(evidence: Evidence) -> Iterator[Violation]:
    """Each execution's end is told under one key: to a user who knows of it at least, and to nobody under two."""
    if evidence.told is None:
        return
    for execution in evidence.executions:
        keys = evidence.told.get(execution["id"], 0)
        if keys > 1:
            yield Violation(execution["id"], f"its end was told under {keys} keys")
        if not keys and execution["id"] in evidence.sent and execution["status"] in TERMINAL:
            yield Violation(execution["id"], "its end was told to nobody")
