"""`python -m shared.beat`: the process that sends periodic tasks. It imports no task, and nothing that tasks need."""

import sys

from redis.exceptions import LockError, RedisError

from config.workers import BEAT_HEALTH_PORT
from monitoring.server import Answer, HealthServer, as_json
from shared.config import BaseSettings
from shared.overrides import health_port
from shared.schedule_store import ScheduleError, follow
from shared.scheduler import ScheduleApp
from shared.variables import SettingsError
from shared.versions import versions


def serve(app: ScheduleApp, host: str, port: int) -> None:
    """Answer over HTTP from now on; ends the process if it cannot listen there."""

    def live(_: str) -> Answer:
        beat = app.heartbeat
        return as_json({"status": "alive" if beat.young else "hung", "loop_seen_seconds_ago": beat.age}, ok=beat.young)

    def ready(_: str) -> Answer:
        # One that waits for another's lock is ready to take over, and an update may then stop the other.
        return as_json({"status": "sends" if app.sends else "waits for the lock"})

    pages = {"/livez": live, "/readyz": ready, "/version": lambda _: as_json(versions())}
    try:
        HealthServer(host, port, pages).start()
    except OSError as error:
        sys.exit(f"workers: beat cannot start:\nits health server cannot listen on {host}:{port}: {error.strerror}")


def main() -> None:
    """Send what is due until told to stop. Where it cannot go on it ends with 1, and a supervisor starts it again."""
    try:
        settings, port = BaseSettings.load(), health_port("beat", BEAT_HEALTH_PORT)
        app = ScheduleApp(settings)
        if port:
            serve(app, settings.health_host, port)
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
