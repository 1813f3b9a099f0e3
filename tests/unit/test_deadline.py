"""Deadlines: what is left, for parts of the work too, and who spent the rest."""

import pytest

from shared.deadline import Deadline
from shared.errors import DeadlineExceededError


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_it_counts_down_to_zero_and_cuts_what_is_longer() -> None:
    clock = Clock()
    deadline = Deadline.after(5, "the work", clock)
    assert (deadline.remaining, deadline.cut(3), deadline.cut(8), deadline.over) == (5, 3, 5, False)
    deadline.check()
    clock.now = 16
    assert (deadline.remaining, deadline.cut(3), deadline.over) == (0, 0, True)


def test_a_part_never_ends_later_than_the_whole() -> None:
    whole = Deadline.after(5, "the work", Clock())
    assert whole.within(3, "a part").at == 13
    assert whole.within(30, "a part").at == 15


def test_another_deadline_for_the_same_steps_may_end_later() -> None:
    whole = Deadline.after(5, "the work", Clock())
    other = whole.beside(30, "the file")
    assert (other.at, other.what) == (40, "the file")
    assert other.spent is whole.spent


def test_the_error_names_the_steps_that_took_longest() -> None:
    clock = Clock()
    deadline = Deadline.after(5, "the work", clock)
    part = deadline.within(2, "a part")
    for name, seconds in (("asking", 0.5), ("waiting", 3), ("asking", 1), ("reading", 0.25), ("writing", 0.75)):
        with part.step(name):
            clock.now += seconds
    with pytest.raises(DeadlineExceededError) as caught:
        deadline.check()
    assert str(caught.value) == "the work ran out of time: waiting took 3.0 s, asking took 1.5 s, writing took 0.8 s"
    assert caught.value.retry


def test_a_step_that_fails_is_charged_too() -> None:
    clock = Clock()
    deadline = Deadline.after(0, "the work", clock)

    def fail() -> None:
        with deadline.step("failing"):
            clock.now += 1
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert deadline.spent == {"failing": 1}
    assert str(Deadline.after(0, "nothing done", clock).exceeded()) == "nothing done ran out of time"
