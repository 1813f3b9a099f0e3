"""The receiver of webhooks: it counts what it takes, and answers as it is told."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx


def post(backend: Any, name: str, body: Any, key: str = "key-1") -> httpx.Response:
    url = backend.http.base_url.join(f"/sandbox/hooks/{name}/")
    return httpx.post(url, content=json.dumps(body), headers={"Idempotency-Key": key, "X-Auth": "theirs"})


def test_what_comes_is_kept_and_counted_without_our_key(backend: Any) -> None:
    backend.control("DELETE", "stats")
    club = {"count": 2, "notifications": [{"execution_id": "a"}, {"execution_id": "b"}]}
    assert [post(backend, "one", club).status_code for _ in range(2)] == [200, 200]
    assert post(backend, "one", {"execution_id": "a"}, "key-2").status_code == 200
    found = backend.control("GET", "hooks/")["one"]
    assert (found["deliveries"], found["keys"], found["executions"]) == (3, 2, {"a": 2, "b": 1})
    first = found["received"][0]
    assert (first["method"], first["headers"]["X-Auth"], json.loads(first["body"])) == ("POST", "theirs", club)
    assert backend.control("GET", "stats")["webhooks"] == {"deliveries": 3, "keys": 2, "repeated": 1}


def test_it_answers_as_it_is_told(backend: Any) -> None:
    backend.control("DELETE", "stats")
    backend.control("PUT", "hooks/rude/", {"status": 503, "retry_after": "7", "delay_seconds": 0.2, "failures": 1})
    begun = time.monotonic()
    refused = post(backend, "rude", {})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")
    assert time.monotonic() - begun >= 0.2
    assert post(backend, "rude", {}).status_code == 200
    assert backend.control("GET", "stats")["webhooks"] == {"deliveries": 2, "keys": 1, "repeated": 0}
    backend.control("PUT", "hooks/rude/", {"status": 307, "location": "/sandbox/hooks/other/", "failures": None})
    assert post(backend, "rude", {}).headers["Location"] == "/sandbox/hooks/other/"
    assert backend.http.put("/sandbox/hooks/rude/", json={"statis": 1}).status_code == 400


def test_only_posting_is_open(backend: Any) -> None:
    url = backend.http.base_url
    assert httpx.get(url.join("/sandbox/hooks/")).status_code == 401
    assert httpx.put(url.join("/sandbox/hooks/one/"), json={}).status_code == 401


def test_what_is_shown_to_rooms_is_counted(backend: Any) -> None:
    backend.control("DELETE", "stats")
    assert backend.http.post("/internal/emit-websocket/", json={"room": "r", "event": "e", "data": {}}).is_success
    assert backend.http.post("/internal/emit-websocket/", json={"room": "r"}).status_code == 400
    assert backend.control("GET", "stats")["emissions"] == 1
