"""What a process looks at before it starts: whether its part of the routing table is right."""

import importlib
from collections.abc import Sequence

from config.verification import Registered, Tables, problems_of
from config.workers import Profile
from shared.task import definitions


class RoutingError(Exception):
    """The tables do not fit together, or not the tasks; the message has one line for each thing that is wrong."""


def registered(modules: Sequence[str]) -> Registered:
    """The tasks of these modules by name, each with its function. The modules are imported."""
    return {
        module: {name: one.function for name, one in definitions(importlib.import_module(module)).items()}
        for module in modules
    }


def refuse_broken(profile: Profile) -> None:
    """Refuse to start a process whose messages would go astray.

    Raises:
        RoutingError: with every line of what is wrong.
    """
    found = dict.fromkeys(problems_of(profile, registered(profile.task_modules), Tables()))
    if found:
        raise RoutingError("\n".join(found))
