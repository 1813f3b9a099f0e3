"""`python -m shared.beat`: the process that sends periodic tasks. It imports no task, and nothing that tasks need."""

import sys

from redis.exceptions import LockError, RedisError

from shared.config import BaseSettings
from shared.schedule_store import ScheduleError, follow
from shared.scheduler import ScheduleApp
from shared.variables import SettingsError


def main() -> None:
    """Send what is due until told to stop. Where it cannot go on it ends with 1, and a supervisor starts it again."""
    try:
        settings = BaseSettings.load()
        app = ScheduleApp(settings)
        follow(app)
        app.Beat(loglevel=settings.log_level).run()
    except (SettingsError, ScheduleError) as error:
        sys.exit(f"workers: beat cannot start:\n{error}")
    except LockError as error:
        sys.exit(f"workers: beat ends, since another may send now: {error}")
    except RedisError as error:
        sys.exit(f"workers: beat ends, since the state store cannot be asked: {error}")


if __name__ == "__main__":
    main()
