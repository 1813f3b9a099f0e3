"""The one Celery application: built from a profile and settings, the same for every worker."""

import shared.without_extras  # noqa: F401, I001 # first: it must come before Celery

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery.bin.base import CLIContext
from celery.bin.worker import worker
from celery.exceptions import DuplicateTaskNameWarning

from config.workers import Profile, UnknownProfileError, profile_named
from shared import lifecycle, process_health, remote_control, timers, tracing
from shared.celery_settings import celery_settings, pool_settings, publishing_options
from shared.config import Settings
from shared.call import WorkerApp
from shared.overrides import POOL, commanded, load
from shared.passage import message_headers
from shared.start_check import RoutingError, refuse_broken
from shared.task import register
from shared.tracing import span
from shared.variables import SettingsError
from shared.workflows.catalogue import refuse_unusable
from shared.workflows.errors import DeclarationError


class _App(WorkerApp):
    """The application of a worker process."""

    def send_task(self, name: str, *args: Any, headers: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Celery's own, through which retries and hand-backs go too: whose request it is goes with every message."""
        queue = options.get("queue")
        with span("PRODUCER", f"send {name}", queue=getattr(queue, "name", queue)):
            return super().send_task(name, *args, headers={**(headers or {}), **message_headers()}, **options)

    def __reduce__(self) -> tuple[Callable[[str], WorkerApp], tuple[str]]:
        """A spawned child of a prefork pool builds its own, from the same environment."""
        return worker_app, (self.profile.name,)


def build_app(profile: Profile, settings: Settings) -> WorkerApp:
    """The application of the process that holds that profile. No connection is made.

    Raises:
        DuplicateTaskNameWarning: two functions have one task name. Celery only warns, and one of them silently wins.
    """
    app = _App(profile.name, settings.broker_url.reveal(), publishing_options(settings))
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
        refuse_unusable(profile, settings)
        app = build_app(profile, settings)
        tracing.install(settings, f"workers-{profile.name}")
    except (SettingsError, UnknownProfileError, RoutingError, DeclarationError) as error:
        sys.exit(f"workers: {profile_name} cannot start:\n{error}")
    lifecycle.install(app.resources, app.steps["worker"])
    process_health.install(app)
    timers.install(app)
    remote_control.install()
    return app


def run(app: WorkerApp, arguments: Sequence[str]) -> None:
    """Be that worker until told to stop. `arguments` are those of `celery worker` and win over all that is ours.

    But for `--loglevel=WARNING`, which Celery says by itself when nobody says anything: LOG_LEVEL decides then.
    """
    try:
        profile = commanded(app.profile, app.resources.settings, options_of(arguments))
        refuse_broken(profile)
    except (SettingsError, RoutingError) as error:
        sys.exit(f"workers: {app.profile.name} cannot start:\n{error}")
    app.profile, scale = profile, profile.pool.autoscale
    # Celery's command line takes `prefork` for unsaid where a pool is configured, and ours is.
    app.conf.update(pool_settings(profile.pool))
    # The command itself, not `app.worker_main`: that imports all other commands, with a shell of 115 modules and 5 MB.
    # Gossip and mingle talk to every other worker at start and for ever after, and nothing here listens.
    # https://docs.celeryq.dev/en/stable/userguide/workers.html
    worker.main(
        [
            "--without-gossip",
            "--without-mingle",
            f"--hostname={profile.name}@%h",
            f"--queues={','.join(profile.queues)}",
            *([f"--autoscale={scale[0]},{scale[1]}"] if scale else []),
            *arguments,
        ],
        prog_name="celery worker",
        obj=CLIContext(app, no_color=None, workdir=None),
        standalone_mode=False,
    )


def options_of(arguments: Sequence[str]) -> dict[str, str]:
    """What arguments of `celery worker` say of the process, by the options' long names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for short, long in (("-P", "--pool"), ("-c", "--concurrency"), ("-Q", "--queues")):
        parser.add_argument(short, long)
    for override in POOL:
        if override.option not in {"--pool", "--concurrency"}:
            parser.add_argument(override.option)
    said = vars(parser.parse_known_args(arguments)[0])
    return {f"--{name.replace('_', '-')}": value for name, value in said.items()}
