"""The workflows that this process knows: those of the modules that WORKFLOW_MODULES names."""

import difflib
import importlib
import inspect
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from config.queue_routing import WORKFLOW_QUEUES
from config.workers import Profile
from shared.config import Settings
from shared.task import tried
from shared.workflows.declaration import BaseWorkflow, Declaration
from shared.workflows.errors import DeclarationError, UnknownWorkflowError


class Catalogue:
    """Workflows by name.

    Raises:
        DeclarationError: two have one name.
    """

    def __init__(self, owners: Iterable[type[BaseWorkflow]]) -> None:
        self._declarations: dict[str, Declaration] = {}
        for owner in dict.fromkeys(owners):
            found = owner.declaration
            if found.name in self._declarations:
                both = f"{_place(self._declarations[found.name].owner)} and {_place(owner)}"
                raise DeclarationError(f"workflow {found.name} is declared twice, by {both}; rename one")
            self._declarations[found.name] = found

    def named(self, name: str) -> Declaration:
        """The workflow of that name.

        Raises:
            UnknownWorkflowError: there is none.
        """
        if name not in self._declarations:
            near = difflib.get_close_matches(str(name), self._declarations, n=1)
            known = ", ".join(self._declarations) or "none; WORKFLOW_MODULES names the modules that declare any"
            remedy = f"did you mean {near[0]!r}?" if near else f"known are: {known}"
            raise UnknownWorkflowError(f"there is no workflow {name!r} here; {remedy}")
        return self._declarations[name]

    def __iter__(self) -> Iterator[Declaration]:
        return iter(self._declarations.values())


def load(modules: Iterable[str]) -> Catalogue:
    """The workflows that these modules declare. The modules are imported.

    Raises:
        DeclarationError: with all that is wrong: a module cannot be imported, or declares nothing, or a workflow that
            cannot be.
    """
    owners: list[type[BaseWorkflow]] = []
    mistakes: list[str] = []
    for name in modules:
        module, error = tried(partial(importlib.import_module, name))
        found = list(_declared(vars(module))) if module else []
        owners += found
        if isinstance(error, DeclarationError):
            mistakes.append(str(error))
        elif error is not None:
            mistakes.append(f"WORKFLOW_MODULES names {name}, which cannot be imported: {_at(error)}")
        elif not found:
            mistakes.append(f"WORKFLOW_MODULES names {name}, which has no class under @workflow")
    if mistakes:
        raise DeclarationError("\n".join(mistakes))
    return Catalogue(owners)


def refuse_unusable(profile: Profile, settings: Settings) -> Catalogue:
    """Refuse to start a process that takes steps, and whose workflows cannot be run on its broker.

    RabbitMQ ends the consumer that holds a message for too long, and gives the message to another. A Redis broker
    does the latter alone, which then waits for the lease of the first.

    Returns: the workflows that it will know; none if it takes no steps.

    Raises:
        DeclarationError: as `load` does; and for a step that may take longer.
    """
    takes_steps = set(WORKFLOW_QUEUES.values()).intersection(profile.queues)
    known = load(settings.workflow_modules if takes_steps else ())
    if settings.broker_url.reveal().startswith("redis"):
        return known
    late = [
        f"step {step.name} of workflow {one.name} may take {step.timeout:g} s, and must take less than "
        f"BROKER_CONSUMER_TIMEOUT, {settings.consumer_timeout}, after which RabbitMQ ends whoever holds its message"
        for one in known
        for step in one.shape.steps
        if step.timeout >= settings.consumer_timeout
    ]
    if late:
        raise DeclarationError("\n".join(late))
    return known


def _at(error: Exception) -> str:
    """An error with the place in the module where it was raised."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; install it, or have PYTHONPATH name the folder that it is in"
    if isinstance(error, ImportError | SyntaxError):
        return str(error)  # which have it in their words
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def _declared(names: Mapping[str, object]) -> Iterator[type[BaseWorkflow]]:
    for value in names.values():
        if inspect.isclass(value) and issubclass(value, BaseWorkflow) and "declaration" in vars(value):
            yield value


def _place(owner: type) -> str:
    return f"{owner.__module__}.{owner.__qualname__}"
