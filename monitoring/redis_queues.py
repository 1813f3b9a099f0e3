"""The queues of a Redis broker, as kombu keeps them: lists, and one hash of what is unacknowledged.

https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.transport.redis.html
"""

import json
from collections import Counter
from collections.abc import Sequence

import redis
from kombu.transport.redis import PRIORITY_STEPS, Channel

from monitoring.prometheus_metrics import QUEUE_LENGTH, QUEUE_STANDSTILL, QUEUE_UNACKNOWLEDGED
from monitoring.queue_exporter import Found, Standstill

# A queue's length and what its oldest message is, for each list; kombu pushes on the left. Messages, which may be long
# and are nobody's business here, stay where they are.
_LOOK = """
local found = {}
for _, key in ipairs(KEYS) do
    local oldest = redis.call('LINDEX', key, -1)
    found[#found + 1] = redis.call('LLEN', key)
    found[#found + 1] = oldest and redis.sha1hex(oldest) or ''
end
return found
"""
# Messages in hand that are looked through in each round, each with its body; of more it is not said whose they are.
_MOST_UNACKNOWLEDGED = 10_000
_AT_ONCE = 100


class RedisQueues:
    """Asks a Redis broker. Nothing is taken.

    Args:
        client: its client, with bounded waits.
        queues: the names of queues.
        standstill: hears which moved. One that is consumed has another oldest message each time.
    """

    def __init__(self, client: redis.Redis, queues: Sequence[str], standstill: Standstill) -> None:
        self._client, self._queues, self._standstill = client, queues, standstill
        self._look = client.register_script(_LOOK)
        self._oldest: dict[str, list[str]] = {}

    def __call__(self) -> Found:
        """Depth, standstill and what is unacknowledged of each queue; one that does not exist is empty."""
        lists = [_list_of(queue, step) for queue in self._queues for step in PRIORITY_STEPS]
        found = self._look(keys=lists)
        depths: dict[tuple[str, ...], float] = {}
        still: dict[tuple[str, ...], float] = {}
        width = 2 * len(PRIORITY_STEPS)
        for at, queue in enumerate(self._queues):
            part = found[at * width : (at + 1) * width]
            depth, oldest = sum(part[::2]), part[1::2]
            if any(was and was != now for was, now in zip(self._oldest.get(queue, ()), oldest, strict=False)):
                self._standstill.moved(queue)
            self._oldest[queue] = oldest
            depths[queue,] = depth
            still[queue,] = self._standstill.seconds(queue, depth)
        return {QUEUE_LENGTH: depths, QUEUE_STANDSTILL: still, QUEUE_UNACKNOWLEDGED: self._unacknowledged()}

    def _unacknowledged(self) -> dict[tuple[str, ...], float]:
        """Messages in hand by the queue they came from; nothing if there are too many."""
        if self._client.hlen(Channel.unacked_key) > _MOST_UNACKNOWLEDGED:
            return {}
        # A scan may show an entry twice.
        queues = {
            tag: json.loads(kept)[2] for tag, kept in self._client.hscan_iter(Channel.unacked_key, count=_AT_ONCE)
        }
        counted = Counter(queues.values())
        return {(queue,): counted[queue] for queue in self._queues}


def _list_of(queue: str, step: int) -> str:
    """As kombu's channel calls it, of which there is none here."""
    return f"{queue}{Channel.sep}{step}" if step else queue
