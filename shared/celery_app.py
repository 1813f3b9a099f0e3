"""The one Celery application: built from a profile and settings, the same for every worker."""

import shared.without_django  # noqa: F401, I001 # first: it must come before Celery

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from celery.exceptions import DuplicateTaskNameWarning

from config.workers import Profile, UnknownProfileError, profile_named
from shared import lifecycle, timers
from shared.celery_settings import celery_settings, pool_settings, publishing_options
from shared.config import Settings
from shared.call import WorkerApp
from shared.overrides import load
from shared.routing import RoutingError, refuse_broken
from shared.task import register
from shared.variables import SettingsError


class _App(WorkerApp):
    """The application of a worker process."""

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Celery's own, but a publish never hangs on it."""
        return super().connection_for_write(url, **publishing_options(self.resources.settings) | options)

    def __reduce__(self) -> tuple[Callable[[str], WorkerApp], tuple[str]]:
        """A spawned child of a prefork pool builds its own, from the same environment."""
        return worker_app, (self.profile.name,)


def build_app(profile: Profile, settings: Settings) -> WorkerApp:
    """The application of the process that holds that profile. No connection is made.

    Raises:
        DuplicateTaskNameWarning: two functions have one task name. Celery only warns, and one of them silently wins.
    """
    # No fixups: Celery's own would import Django wherever DJANGO_SETTINGS_MODULE is set.
    app = _App(profile.name, fixups=[])
    app.profile = profile
    app.resources = lifecycle.Resources(settings)
    app.conf.update(celery_settings(profile, settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DuplicateTaskNameWarning)
        for module in profile.task_modules:
            register(app, importlib.import_module(module))
        app.finalize()
    return app


def worker_app(profile_name: str) -> WorkerApp:
    """The application of a worker process, as its environment has it; ends the process if anything is wrong."""
    try:
        profile, settings = load(profile_named(profile_name))
        refuse_broken(profile)
        app = build_app(profile, settings)
    except (SettingsError, UnknownProfileError, RoutingError) as error:
        sys.exit(f"workers: {profile_name} cannot start:\n{error}")
    lifecycle.install(app.resources, app.steps["worker"])
    timers.install(app)
    return app


def run(app: WorkerApp, arguments: Sequence[str]) -> None:
    """Be that worker until told to stop. `arguments` are those of `celery worker` and win over all that is ours.

    But for `--loglevel=WARNING`, which Celery says by itself when nobody says anything: LOG_LEVEL decides then.
    """
    asked = _asked(arguments)
    pool = app.profile.pool.of_kind(asked.pool or app.profile.pool.kind)
    # Celery's command line takes `prefork` for unsaid where a pool is configured, and ours is.
    app.conf.update(pool_settings(pool))
    name = app.profile.name
    processes = [f"--autoscale={pool.autoscale[0]},{pool.autoscale[1]}"] if pool.autoscale else []
    # Gossip and mingle talk to every other worker at start and for ever after, and nothing here listens.
    # https://docs.celeryq.dev/en/stable/userguide/workers.html
    app.worker_main(
        [
            "worker",
            "--without-gossip",
            "--without-mingle",
            f"--hostname={name}@%h",
            f"--queues={','.join(app.profile.queues)}",
            *([] if asked.autoscale or asked.concurrency else processes),
            *arguments,
        ]
    )


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line says of the pool."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-P", "--pool")
    parser.add_argument("-c", "--concurrency")
    parser.add_argument("--autoscale")
    return parser.parse_known_args(arguments)[0]
