"""`python -m shared.check`: what `workers check` runs. A table of what is right and what is wrong, exit 0 or 1."""

import sys
from collections.abc import Iterable, Iterator

from shared.config import VISIBILITY_SECONDS, Settings
from shared.health import Finding, Verdict, look
from shared.logging_utils import configure_logging
from shared.variables import SettingsError

_WIDTH = 26


def configuration() -> tuple[Settings | None, list[Finding]]:
    """The settings, if the environment makes any, and what there is to say of it: one finding for every mistake."""
    try:
        settings = Settings.load()
    except SettingsError as mistakes:
        return None, [Finding("configuration", Verdict.WRONG, line) for line in str(mistakes).splitlines()]
    found = f"{len(settings.describe())} variables, ENVIRONMENT={settings.environment}"
    return settings, [Finding("configuration", Verdict.OK, found)]


def rows(findings: Iterable[Finding]) -> Iterator[str]:
    """The table, line by line."""
    for finding in findings:
        yield f"{finding.what:{_WIDTH}}{finding.verdict:7}{finding.found}"
        if finding.remedy:
            yield f"{'':{_WIDTH + 7}}→ {finding.remedy}"


def times(settings: Settings) -> Iterator[str]:
    """The table of times: what may take how long, each with its variable."""
    table = (
        ("a request, all its attempts", settings.backend_timeout, "INTERNAL_API_TIMEOUT, below the slice"),
        ("a batch's slice", settings.batch_slice, "BATCH_SLICE_SECONDS"),
        ("any other task", settings.task_deadline, "TASK_DEADLINE_SECONDS, below the broker's time"),
        ("a file", settings.file_deadline, "FILE_DEADLINE_SECONDS, below the execution's"),
        ("an execution", settings.execution_deadline, "EXECUTION_DEADLINE_SECONDS"),
        ("the circuit, open", settings.breaker_recovery, "CIRCUIT_BREAKER_RECOVERY_TIMEOUT"),
        ("a message held, on Redis", VISIBILITY_SECONDS, "fixed; above the slice and one request"),
    )
    for what, seconds, variable in table:
        yield f"{what:{_WIDTH}}{seconds:>7g} s  {variable}"


def main() -> int:
    """Print everything, as it is found. Returns 1 if anything is wrong."""
    configure_logging("ERROR", "auto")
    settings, findings = configuration()
    wrong = False

    def noted(found: Iterable[Finding]) -> Iterator[Finding]:
        nonlocal wrong
        for finding in found:
            wrong |= finding.verdict is Verdict.WRONG
            yield finding

    for line in rows(noted(findings)):
        print(line, flush=True)  # noqa: T201 # the command's answer
    if settings is not None:
        for line in rows(noted(look(settings))):
            print(line, flush=True)  # noqa: T201
        print("", *times(settings), sep="\n")  # noqa: T201
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
