"""What runs at its time: one row per periodic task, by the string name that the routing table has.

Scheduled pipelines are not here: operators add them while the scheduler runs (`workers schedule set`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

# Where the scheduler writes when it last looked for what is due, in seconds since 1970. No entry has such a name.
TICK_KEY = "workers:beat::tick"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One task and its times.

    Attributes:
        name: what operators call it.
        task: a name of the routing table, which says where it goes.
        schedule: seconds between two runs, or a crontab, `minute hour day-of-month month day-of-week`, by
            SCHEDULE_TIMEZONE.
        args: its arguments by place, as JSON takes them.
        kwargs: its arguments by name.
    """

    name: str
    task: str
    schedule: float | str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


ENTRIES = (
    Entry(name="release-expired-reservations", task="workers.release_expired_reservations", schedule=300),
    # What buffered events of an organization wait for besides is the backend's to say.
    Entry(name="process-notification-buffer", task="process_notification_buffer", schedule=60),
    Entry(name="process-log-history", task="process_log_history", schedule=30),
)
