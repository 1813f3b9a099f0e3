"""Requests that are held at a point, and executions that are deleted: what the tests of crashes are made with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


@pytest.mark.parametrize(("switch", "meanwhile"), [("hold_request", "PENDING"), ("hold_answer", "EXECUTING")])
def test_a_request_is_held_before_it_is_handled_or_after_its_commit(echo: Any, switch: str, meanwhile: str) -> None:
    execution = echo.execution()
    path = f"workflow-execution/{execution}/update_status/"
    echo.control("DELETE", "stats")
    echo.control("PUT", "switches", {switch: "POST /internal/v1/" + path})
    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(echo.call, "POST", path, {"status": "EXECUTING"})
        try:
            echo.until("the hold", lambda: echo.control("GET", "stats")["injected"].get(switch) == 1)
            assert echo.control("GET", f"executions/{execution}/")["execution"]["status"] == meanwhile
            assert echo.call("GET", "health/").status_code == 200
            assert not held.done()
        finally:
            echo.control("PUT", "switches", {"reset": True})
        assert held.result(10).status_code == 200
    assert echo.control("GET", f"executions/{execution}/")["execution"]["status"] == "EXECUTING"


def test_an_execution_can_be_deleted_with_its_files(echo: Any) -> None:
    execution = echo.execution()
    file = echo.file(execution)["file_data"]["file_execution_id"]
    assert echo.control("DELETE", f"executions/{execution}/") == {"deleted": True}
    assert echo.control("DELETE", f"executions/{execution}/") == {"deleted": False}
    assert echo.call("GET", f"workflow-execution/{execution}/").status_code == 404
    assert echo.call("GET", f"file-execution/{file}/").status_code in {404, 500}
