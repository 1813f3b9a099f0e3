"""What `workers check` runs: a table of what is right and what is wrong, exit 0 or 1."""

from collections.abc import Iterator
from itertools import chain

import click

from config.workers import PROFILES
from shared.commands.orphans import hand_over
from shared.config import Settings
from shared.errors import WorkerError
from shared.health import Finding, Verdict, look
from shared.logging_utils import configure_logging
from shared.overrides import load
from shared.variables import SettingsError
from shared.workflows.catalogue import refuse_unusable
from shared.workflows.errors import DeclarationError

_WIDTH = 26


def configuration() -> tuple[Settings | None, list[Finding]]:
    """The settings, if the environment makes any, and what there is to say of it: one finding for every mistake."""
    try:
        settings = Settings.load()
    except SettingsError as mistakes:
        return None, [Finding("configuration", Verdict.WRONG, line) for line in str(mistakes).splitlines()]
    found = f"{len(settings.describe())} variables, ENVIRONMENT={settings.environment}"
    return settings, [Finding("configuration", Verdict.OK, found), *unstartable(), *workflows(settings)]


def unstartable() -> Iterator[Finding]:
    """The profiles that would not start with this environment: maybe none of them is meant to."""
    for profile in PROFILES.values():
        try:
            load(profile)
        except SettingsError as mistakes:
            for line in str(mistakes).splitlines():
                yield Finding(f"profile {profile.name}", Verdict.NOTE, f"it would not start: {line}")


def workflows(settings: Settings) -> Iterator[Finding]:
    """The workflows of WORKFLOW_MODULES, or what is wrong with them."""
    if not settings.workflow_modules:
        return
    try:
        known = refuse_unusable(PROFILES["general"], settings)
    except DeclarationError as mistakes:
        for line in str(mistakes).splitlines():
            yield Finding("workflows", Verdict.WRONG, line)
    else:
        yield Finding("workflows", Verdict.OK, ", ".join(one.name for one in known))


def rows(finding: Finding) -> Iterator[str]:
    """One row of the table, and below it what to do. In ASCII but for what was found: terminals differ."""
    yield f"{finding.what:{_WIDTH}}{finding.verdict:7}{finding.found}"
    if finding.remedy:
        yield f"{'':{_WIDTH + 7}}-> {finding.remedy}"


def times(settings: Settings) -> Iterator[str]:
    """The table of times: what may take how long, each with its variable."""
    table = (
        ("a request, all its attempts", settings.backend_timeout, "INTERNAL_API_TIMEOUT, below the slice"),
        ("a batch's slice", settings.batch_slice, "BATCH_SLICE_SECONDS"),
        ("any other task", settings.task_deadline, "TASK_DEADLINE_SECONDS, below the broker's time"),
        ("a file", settings.file_deadline, "FILE_DEADLINE_SECONDS, below the execution's"),
        ("an execution", settings.execution_deadline, "EXECUTION_DEADLINE_SECONDS"),
        ("the circuit, open", settings.breaker_recovery, "CIRCUIT_BREAKER_RECOVERY_TIMEOUT"),
        ("an execution without news", settings.stall, "STALL_SECONDS, then the reaper looks after it"),
        ("a stop", settings.drain, "DRAIN_SECONDS, below the container's grace"),
        ("a lease of a dead worker", settings.lease, "LEASE_SECONDS"),
        ("a message held, on Redis", settings.visibility, "BROKER_VISIBILITY_TIMEOUT, above slice, request and stop"),
        ("a message held, on RabbitMQ", settings.consumer_timeout, "BROKER_CONSUMER_TIMEOUT, likewise"),
    )
    for what, seconds, variable in table:
        yield f"{what:{_WIDTH}}{seconds:>7g} s  {variable}"


@click.command()
@click.option("--orphans", nargs=2)
@click.pass_context
def main(context: click.Context, orphans: tuple[str, str] | None) -> None:
    """Print everything, as it is found. Exits 1 if anything is wrong."""
    configure_logging("ERROR", "auto")
    settings, findings = configuration()
    if orphans is not None and settings is not None:
        context.exit(_hand_over(settings, *orphans))
    wrong = False
    for finding in chain(findings, look(settings) if settings else ()):
        wrong |= finding.verdict is Verdict.WRONG
        click.echo("\n".join(rows(finding)))
    if settings:
        click.echo("\n".join(["", *times(settings)]))
    context.exit(int(wrong))


def _hand_over(settings: Settings, organization_id: str, workflow_id: str) -> int:
    try:
        for line in hand_over(settings, organization_id, workflow_id):
            click.echo(line)
    except WorkerError as error:
        click.echo(f"workers: orphans cannot be looked for: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    main()
