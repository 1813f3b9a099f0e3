"""The HTTP server of a process, and checks that hang."""

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.process import memory_share, sums, usage
from monitoring.server import Answer, HealthServer, as_json
from monitoring.watched import Watched
from shared.heartbeat import Heartbeat


@pytest.fixture
def server() -> Iterator[HealthServer]:
    made = HealthServer(
        "127.0.0.1",
        0,
        {
            "/livez": lambda _: as_json({"status": "alive"}),
            "/readyz": lambda _: as_json({"status": "not ready"}, ok=False),
            "/metrics": lambda accept: Answer(accept.encode(), kind="text/plain"),
        },
    )
    made.start()
    yield made
    made.close()


def ask(server: HealthServer, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def test_a_page_is_answered_with_its_status_and_type(server: HealthServer) -> None:
    alive, not_ready = ask(server, "/livez"), ask(server, "/readyz/?verbose")
    assert (alive.status, json.loads(alive.read())) == (200, {"status": "alive"})
    assert (not_ready.status, json.loads(not_ready.read())) == (503, {"status": "not ready"})
    metrics = ask(server, "/metrics", Accept="text/special")
    assert (metrics.read(), metrics.headers["Content-Type"]) == (b"text/special", "text/plain")
    assert alive.headers["Server"].strip() == "workers"


def test_what_is_no_page_says_which_are(server: HealthServer) -> None:
    for path in ("/", "/admin", "/../etc/passwd"):
        answer = ask(server, path)
        assert answer.status == 404
        assert json.loads(answer.read())["pages"] == ["/livez", "/metrics", "/readyz"]
    assert ask(server, "/livez", "POST").status == 501


def test_a_head_is_a_page_without_its_body(server: HealthServer) -> None:
    answer = ask(server, "/livez", "HEAD")
    assert (answer.status, answer.read(), answer.headers["Content-Length"]) == (200, b"", "20")


def test_clients_that_say_nothing_keep_nobody_else_from_an_answer(server: HealthServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]
    begun = time.monotonic()
    assert ask(server, "/livez").status == 200
    assert time.monotonic() - begun < 2
    for one in silent:
        one.close()


def test_clients_that_never_finish_make_room_for_those_that_ask(server: HealthServer) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
    for one in slow[-60:]:
        one.send(b"G")
    for _ in range(70):
        assert ask(server, "/livez").status == 200
    assert slow[0].recv(1) == b""
    for one in slow:
        one.close()


def test_what_is_no_request_is_no_page(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=2) as connection:
        connection.send(b"GET http://[::1/livez HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 404")


def test_a_port_that_is_taken_is_an_error(server: HealthServer) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        HealthServer("127.0.0.1", server.port, {})


def test_it_listens_where_it_is_told() -> None:
    made = HealthServer("::1", 0, {"/livez": lambda _: as_json({})})
    made.start()
    with socket.create_connection(("::1", made.port), timeout=2):
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", made.port), timeout=2)
    made.close()


class Look:
    """A check that waits until it may go on."""

    def __init__(self) -> None:
        self.made, self.go = 0, threading.Event()

    def __call__(self) -> str:
        self.made += 1
        self.go.wait(10)
        return f"finding {self.made}"


def test_a_check_that_hangs_is_waited_for_once_and_never_made_twice_at_a_time() -> None:
    look = Look()
    watched = Watched(look, patience=0.2, kept=60)
    begun = time.monotonic()
    with_waiting = watched.found()
    waited = time.monotonic() - begun
    assert with_waiting is None
    assert 0.15 < waited < 1
    begun = time.monotonic()
    assert [watched.found() for _ in range(5)] == [None] * 5
    assert time.monotonic() - begun < 0.1
    assert look.made == 1
    look.go.set()
    while watched.last() is None:
        time.sleep(0.01)
    assert watched.found() == "finding 1"


def test_a_finding_is_kept_for_some_seconds_and_then_made_anew() -> None:
    look, now = Look(), [100.0]
    look.go.set()
    watched = Watched(look, patience=5, kept=10, clock=lambda: now[0])
    assert [watched.found() for _ in range(3)] == ["finding 1"] * 3
    now[0] += 11
    assert watched.last() == "finding 1"
    assert watched.found() == "finding 2"


def test_a_heartbeat_grows_old() -> None:
    now = [0.0]
    heartbeat = Heartbeat(lambda: now[0])
    now[0] = 24
    assert heartbeat.young
    now[0] = 26
    assert not heartbeat.young
    heartbeat.beat()
    assert (heartbeat.young, heartbeat.age) == (True, 0)


def test_processes_that_have_ended_take_nothing() -> None:
    mine = usage(os.getpid())
    assert mine["process_resident_memory_bytes"] > 10_000_000
    assert mine["process_threads"] >= 1
    both = sums([os.getpid(), 2**22 + 1], "process_resident_memory_bytes", "process_open_fds")
    assert both["process_resident_memory_bytes"] == pytest.approx(mine["process_resident_memory_bytes"], rel=0.2)
    assert both["process_open_fds"] >= 3


def test_the_share_of_memory_is_that_of_the_container_s_limit(tmp_path: Path) -> None:
    assert 0 < memory_share(tmp_path) < 1  # the machine's
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert memory_share(tmp_path) == 0.5
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_share(tmp_path) == pytest.approx(memory_share(tmp_path / "nothing"), abs=0.2)
