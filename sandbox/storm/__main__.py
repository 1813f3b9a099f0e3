"""`workers storm`: everything that can break breaks, over and over, and then each promise is looked at.

A real platform on this machine, as in `workers demo`, whose broker and state store keep what they have.
"""

import random
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from sandbox.driver import Driver
from sandbox.parent import end_with_parent
from sandbox.stack import Stack, StackError
from sandbox.storm.course import Course, Options
from sandbox.storm.judge import judge
from sandbox.storm.report import View, figures
from sandbox.storm.traffic import Traffic


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, name="storm")
@click.option("--minutes", type=click.FloatRange(0.1, 1_440), default=1.0, show_default=True, help="How long it blows.")
@click.option("--seed", type=int, help="Repeat the storm of this seed; without it, one that nobody has seen.")
@click.option("--broker", type=click.Choice(["rabbitmq", "redis"]), default="redis", show_default=True)
@click.option("--pool", type=click.Choice(["threads", "prefork"]), default="threads", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1, 16), default=2, show_default=True, help="Processes of file_processing."
)
@click.option(
    "--patience",
    type=click.FloatRange(1, 3_600),
    default=120.0,
    show_default=True,
    help="Seconds of fair weather in which everything must come to its end.",
)
@click.option("--logs", type=click.Path(path_type=Path, file_okay=False), help="Keep every part's log in this folder.")
def storm(seed: int | None, logs: Path | None, **options: Any) -> None:
    """Kill, stop and end workers, broker, state store and backend at random while executions flow in; then judge.

    Once it is over, the weather is fair and everything alive: every execution must end with the right counts, every
    file's tools run once, its result be there once, and nothing be left behind. `--broker rabbitmq` needs RabbitMQ
    installed; the storm starts a node of its own.

    Exit code: 0 if every promise was kept, 1 if not (each violation is named), 2 on a wrong call.
    """
    end_with_parent()
    given = Options(seed=random.randrange(1_000_000) if seed is None else seed, **options)  # noqa: S311 # no secret
    try:
        violations = _run(given, logs)
    except StackError as error:
        sys.exit(f"workers storm: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if violations else 0)


def _run(options: Options, logs: Path | None) -> int:
    """The number of violations."""
    view = View()
    shown = f"--seed {options.seed} --minutes {options.minutes:g} --broker {options.broker} --pool {options.pool}"
    view.say(f"workers storm {shown} --workers {options.workers}")
    with Stack() as stack:
        course = Course(stack, options, view.say)
        try:
            course.start()
            with Driver(stack) as driver:
                hook = f"{stack.backend_url}/sandbox/hooks/storm/"
                with Traffic(driver, stack.folder / "documents", options.seed, hook) as traffic:
                    course.blow(driver, traffic)
                    view.say("It is over. Everything is alive, and the weather is fair.")
                    evidence = course.calm_down(driver, traffic)
        finally:
            if logs is not None:
                logs.mkdir(parents=True, exist_ok=True)
                for log in stack.folder.glob("*.log"):
                    shutil.copy(log, logs)
    found = judge(evidence)
    view.finish(figures(evidence, traffic.refused), course.supervisor.done, found)
    return len(found)


if __name__ == "__main__":
    storm(prog_name="workers storm")
