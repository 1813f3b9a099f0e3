"""How many messages of low queues may be in hand, and how they are counted."""

from dataclasses import dataclass, field

import pytest

from config.queue_routing import QUEUES, Priority
from config.workers import PROFILES, Profile
from shared.priorities import InHand, _QueuesWithRoom, limits

ALL = PROFILES["all"]
LOW = {queue for queue, priority in QUEUES.items() if priority is Priority.LOW}


def test_each_low_queue_has_what_the_registry_gives_its_worker_and_the_rest_is_left() -> None:
    assert limits(ALL, ALL.queues, 48) == {
        "file_processing": 16,
        "api_file_processing": 16,
        "workers_workflow_low": 5,  # of a worker that has queues of all three classes
    }
    assert limits(ALL, ALL.queues, 6) == {
        "file_processing": 2,
        "api_file_processing": 2,
        "workers_workflow_low": 1,
    }


@pytest.mark.parametrize("slots", range(4, 100))
def test_a_slot_is_always_left_and_every_low_queue_has_one(slots: int) -> None:
    found = limits(ALL, ALL.queues, slots)
    assert set(found) == LOW
    assert min(found.values()) >= 1
    assert sum(found.values()) < slots


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_low_queues_are_limited_where_they_have_company(profile: Profile) -> None:
    assert bool(limits(ALL, profile.queues, 48)) == (profile.name in {"all", "general"})


def test_what_is_consumed_counts_and_not_what_the_profile_has() -> None:
    assert limits(ALL, ["file_processing", "celery"], 48) == {"file_processing": 24}
    assert limits(ALL, ["file_processing", "celery"], 2) == {"file_processing": 1}
    assert limits(ALL, ["file_processing", "somebody's"], 5) == {"file_processing": 4}
    assert limits(ALL, sorted(LOW), 48) == {}


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_where_nothing_can_be_left_a_start_says_so(slots: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert limits(ALL, ALL.queues, slots) == {}
    said = capsys.readouterr()
    assert "no_slot_for_urgent_work" in said.out + said.err


@dataclass
class Request:
    queue: str
    time_start: float | None = None
    acknowledged: bool = False
    delivery_info: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.delivery_info = {"exchange": self.queue, "routing_key": self.queue}


def test_what_is_acknowledged_is_no_longer_in_hand() -> None:
    in_hand = InHand({"low": 2})
    first, second = Request("low"), Request("low", time_start=1.0)
    for request in (first, Request("urgent"), second):
        assert not in_hand.full("low")
        in_hand.take(request)
    assert in_hand.full("low")
    assert not in_hand.full("urgent")
    first.acknowledged = True
    assert in_hand.count("low") == 1
    assert not in_hand.full("low")


def test_what_has_ended_is_forgotten_though_nobody_counts() -> None:
    in_hand = InHand({"low": 2})
    for _ in range(1_000):
        in_hand.take(Request("low", acknowledged=True))
    assert len(in_hand._taken["low"]) == 1


def test_a_lost_broker_takes_back_what_has_not_begun_and_nothing_else() -> None:
    in_hand = InHand({"low": 2})
    begun = Request("low", time_start=1.0)
    in_hand.take(begun)
    in_hand.take(Request("low"))
    in_hand.forget_unbegun()
    assert in_hand.count("low") == 1
    begun.acknowledged = True
    assert in_hand.count("low") == 0


def test_a_full_queue_keeps_its_turn() -> None:
    in_hand = InHand({"low": 1})
    asked: list[bool] = []
    turn = _QueuesWithRoom(in_hand, lambda: asked.append(in_hand.full("low")))
    turn.update(["low", "urgent", "other"])
    taken = Request("low")
    in_hand.take(taken)
    assert turn.consume(3) == ["urgent", "other"]
    assert asked == [True]
    turn.rotate("urgent")
    taken.acknowledged = True
    assert turn.consume(3) == ["low", "other", "urgent"]
