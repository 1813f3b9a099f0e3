"""The gate to a group of routes: pauses that all threads keep, and room that slow requests share."""

import threading
import time
from collections.abc import Callable

import pytest

from monitoring.registry import KEPT
from shared.backpressure import Gate
from shared.deadline import Deadline
from shared.errors import BackendBusyError


class Clock:
    """Waiting moves it."""

    def __init__(self) -> None:
        self.now, self.waits = 7.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def gate(clock: Clock, room: threading.Semaphore | None = None) -> tuple[Gate, Callable[[float], Deadline]]:
    def deadline(seconds: float) -> Deadline:
        return Deadline.after(seconds, "work", clock)

    return Gate("tools", room, clock.sleep, clock), deadline


def held(reason: str) -> float:
    return KEPT.value("workers_backend_requests_held_total", group="tools", reason=reason)


def test_an_open_gate_holds_nobody() -> None:
    clock = Clock()
    way, deadline = gate(clock, threading.Semaphore(1))
    for _ in range(3):
        with way.passing(deadline(1)):
            pass
    assert clock.waits == []


def test_a_pause_is_waited_out_and_a_little_more() -> None:
    waits, before = [], held("pause")
    for _ in range(100):
        clock = Clock()
        way, deadline = gate(clock)
        way.pause(3)
        with way.passing(until := deadline(30)):
            assert 10 <= clock.now <= 11
        assert until.spent == pytest.approx({"waiting as the backend asked": clock.waits[0]})
        waits += clock.waits
    assert max(waits) - min(waits) > 0.5
    assert held("pause") == before + 100


def test_a_pause_that_outlasts_the_deadline_says_when_to_come_back() -> None:
    clock = Clock()
    way, deadline = gate(clock)
    way.pause(3)
    clock.now += 1
    with pytest.raises(BackendBusyError, match="pause of its tools requests") as caught, way.passing(deadline(2)):
        raise AssertionError
    assert caught.value.retry_after == 2
    assert clock.waits == []


def test_pauses_have_a_bound_and_a_shorter_one_takes_nothing_back() -> None:
    clock = Clock()
    way, deadline = gate(clock)
    way.pause(86_400)
    way.pause(1)
    with way.passing(deadline(100)):
        assert 17 <= clock.now <= 18


def test_a_pause_that_a_stop_cut_short_is_kept_all_the_same() -> None:
    clock = Clock()
    way = Gate("tools", None, lambda _seconds: True, clock)
    way.pause(5)
    with pytest.raises(BackendBusyError) as caught, way.passing(Deadline.after(30, "work", clock)):
        raise AssertionError
    assert caught.value.retry_after == 5


def test_room_is_given_back_however_the_request_ends() -> None:
    clock = Clock()
    way, deadline = gate(clock, threading.Semaphore(1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), way.passing(deadline(1)):
            _ = 1 // 0


def test_who_finds_no_room_waits_for_it_up_to_the_deadline() -> None:
    room = threading.Semaphore(1)
    way, before = Gate("tools", room), held("room")
    inside, leave = threading.Event(), threading.Event()

    def occupy() -> None:
        with way.passing(Deadline.after(10, "first")):
            inside.set()
            leave.wait(10)

    first = threading.Thread(target=occupy)
    first.start()
    assert inside.wait(10)
    late = Deadline.after(0.05, "second")
    with pytest.raises(BackendBusyError, match="no room for another of the tools requests"), way.passing(late):
        raise AssertionError
    assert late.spent["waiting for room at the backend"] >= 0.04
    threading.Timer(0.05, leave.set).start()
    begun = time.monotonic()
    with way.passing(Deadline.after(10, "third")):
        assert time.monotonic() - begun < 5
    first.join(10)
    assert held("room") == before + 2
