"""`workers workflow` beside an engine whose runs outlive it: `workflows_elsewhere.py WORKFLOW INPUT ARGUMENTS…`.

A run of WORKFLOW is started before the command; RUN among its arguments is that run's id, and ENDED behind them has it
end before. It is a local engine in the place of the fleet's, so that the command alone is asked, and nothing behind it.
"""

import sys
from types import ModuleType
from typing import NoReturn

from shared.commands import workflow
from shared.config import ClientSettings
from shared.workflows import catalogue
from shared.workflows.attempts import Limits
from shared.workflows.engines import local

_KNOWN = catalogue.load(ClientSettings.load().workflow_modules)


def _no_backend() -> NoReturn:
    raise NotImplementedError


class Elsewhere(local.LocalEngine):
    def close(self) -> None:
        """Its runs go on."""


_ENGINE = Elsewhere(Limits(), _no_backend)
_MODULE = ModuleType("shared.workflows.engines.celery")
_MODULE.__dict__["make"] = lambda *_: _ENGINE
sys.modules[_MODULE.__name__] = _MODULE

name, given, *arguments = sys.argv[1:]
run_id = _ENGINE.start(_KNOWN.named(name), given, run_key=None, organization_id=None)
if arguments[-1] == "ENDED":
    arguments.pop()
    seen: list[object] = []
    while not seen or not _ENGINE.events(run_id, str(len(seen) - 1), 0.0)[-1].last:
        seen += _ENGINE.events(run_id, str(len(seen)), 1.0)
sys.argv[1:] = [run_id if argument == "RUN" else argument for argument in arguments]
workflow.main()
