"""The judge of a storm can find every promise broken, one at a time, and finds nothing where all are kept."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sandbox.storm.judge import Evidence, judge

Rows = list[dict[str, Any]]


def file(name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"id-of-{name}",
        "name": name,
        "status": "COMPLETED",
        "error": None,
        "runs": 1,
        "restarts": 0,
        "rows": 0,
        **more,
    }


def execution(name: str, kind: str, *files: dict[str, Any]) -> dict[str, Any]:
    counts = {"total_files": len(files), "successful_files": len(files), "failed_files": 0}
    return {
        "id": name,
        "kind": kind,
        "status": "COMPLETED",
        "error_message": "",
        "files": list(files),
        **counts,
        "pipeline_status": "SUCCESS" if kind == "ETL" else None,
    }


GOOD = Evidence(
    sent={"api": 2, "etl": 1},
    executions=[
        execution("api", "API", file("a"), file("b")),
        execution("etl", "ETL", file("c", rows=1)),
    ],
    results={"api": [("id-of-a", "a"), ("id-of-b", "b")]},
    queues={"celery": 0},
    keys={"workers:execution:api:pushed": 3_600},
    notifications={"enqueued": 2, "duplicates": 0},
    webhooks={"deliveries": 2, "keys": 2, "repeated": 0},
    told={"api": 1, "etl": 1},
)


def doctored(change: Callable[[Rows], Any]) -> Evidence:
    """The good evidence with its executions changed."""
    rows = copy.deepcopy([dict(row) for row in GOOD.executions])
    change(rows)
    return replace(GOOD, executions=rows)


def test_where_every_promise_is_kept_there_is_no_violation() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda rows: rows[0].update(status="EXECUTING"), "is EXECUTING, with 2 of 2 files at their end"),
        (lambda rows: rows[0].update(status="PENDING"), "is PENDING, with 2 of 2"),
        (lambda rows: rows[0].update(status="ERROR", error_message="stalled"), "is ERROR: stalled"),
        (lambda rows: rows[0].update(status="STOPPED"), "is STOPPED: no reason is given"),
        (lambda rows: rows[0].update(total_files=3), "counts 3 files of 2 that were sent"),
        (lambda rows: rows[0].update(successful_files=1), "counts 1 successful and 0 failed of 2 files"),
        (lambda rows: rows[0].update(successful_files=None), "counts None successful and 0 failed of 2 files"),
        (lambda rows: rows[1].update(pipeline_status="INPROGRESS"), "left its pipeline INPROGRESS"),
        (lambda rows: rows[0]["files"].pop(), "has 1 rows for 2 files"),
        (lambda rows: rows[0]["files"].append(file("a", id="other")), "has 2 rows for the file a"),
        (lambda rows: rows[0]["files"][0].update(status="ERROR", error="lost"), "its file a is ERROR: lost"),
        (lambda rows: rows[0]["files"][0].update(status=""), "its file a is new: no reason is given"),
        (lambda rows: rows[0]["files"][0].update(runs=2), "its file a has 2 tool runs"),
        (lambda rows: rows[0]["files"][0].update(runs=0), "its file a has 0 tool runs"),
        (lambda rows: rows[1]["files"][0].update(rows=2), "its file c has 2 rows at the destination"),
        (lambda rows: rows[1]["files"][0].update(rows=0), "its file c has 0 rows at the destination"),
        (lambda rows: rows.pop(), "the backend does not know it any more"),
    ],
)
def test_a_broken_promise_is_named_with_its_execution(change: Callable[[Rows], Any], what: str) -> None:
    found = judge(doctored(change))
    assert [violation for violation in found if violation.what.startswith(what)]
    assert {violation.subject for violation in found} <= {"api", "etl"}


def test_a_run_that_the_backend_began_again_is_nobody_s_fault() -> None:
    assert judge(doctored(lambda rows: rows[0]["files"][0].update(runs=3, restarts=2))) == []


def test_what_its_user_was_not_told_of_may_have_begun_nowhere() -> None:
    unknown = execution("unknown", "API")
    for status in ("PENDING", "ERROR"):
        assert judge(doctored(lambda rows, status=status: rows.append({**unknown, "status": status}))) == []  # type: ignore[misc]


def test_what_its_user_was_not_told_of_must_end_once_it_began() -> None:
    unknown = {**execution("unknown", "API", file("x")), "status": "EXECUTING"}
    (found,) = [
        one for one in judge(doctored(lambda rows: rows.append(unknown))) if one.what.startswith("is EXECUTING")
    ]
    assert found.subject == "unknown"


@pytest.mark.parametrize(
    ("pushed", "what"),
    [
        ("a", "its file b has 0 results"),
        ("abb", "its file b has 2 results"),
        ("abz", "its file id-of-z has the result of z"),
    ],
)
def test_results_are_there_once(pushed: str, what: str) -> None:
    (found,) = judge(replace(GOOD, results={"api": [(f"id-of-{name}", name) for name in pushed]}))
    assert (found.subject, found.what) == ("api", what)


def test_a_result_is_its_document_s() -> None:
    (found,) = judge(replace(GOOD, results={"api": [("id-of-a", "a"), ("id-of-b", "c")]}))
    assert found.what == "its file b has the result of c"


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"queues": {"workers_dead_letters": 1}}, "workers_dead_letters"),
        ({"keys": {"workers:execution:api:fan_in": 17_000}}, "workers:execution:api:fan_in"),
        ({"keys": {"lease": -1}}, "lease"),
        ({"told": {"api": 2, "etl": 1}}, "api"),
        ({"told": {"api": 1}}, "etl"),
    ],
)
def test_nothing_is_left_and_nobody_is_told_twice(changes: dict[str, Any], subject: str) -> None:
    (found,) = judge(replace(GOOD, **changes))
    assert found.subject == subject


def test_a_webhook_that_came_twice_under_one_key_is_no_violation() -> None:
    assert judge(replace(GOOD, webhooks={"deliveries": 3, "keys": 2, "repeated": 1})) == []


def test_the_state_of_an_open_execution_is_no_violation_of_its_own() -> None:
    opened = doctored(lambda rows: rows[0].update(status="EXECUTING"))
    (found,) = judge(replace(opened, keys={"workers:execution:api:fan_in": 17_000}))
    assert found.subject == "api"
