"""Every method of our client against the recordings of the real backend and against the reference backend."""

from __future__ import annotations

import inspect

import pytest

from shared.api_client import OrganizationAPI
from shared.api_installation import InstallationAPI
from tests.contract import cases
from tests.contract.cases import CASES
from tests.contract.recordings import BY_NAME, RECORDINGS, differences
from tests.contract.worlds import Recordings, Reference


@pytest.mark.parametrize("name", [recording["name"] for recording in RECORDINGS if recording["name"] in CASES])
def test_a_method_says_what_was_recorded(world: Recordings | Reference, name: str) -> None:
    case, status = CASES[name], BY_NAME[name]["status"]
    said = world.outcome(name)
    if isinstance(case.says, tuple):
        kind, text = case.says
        assert type(said) is kind, said
        assert text in str(said)
        assert getattr(said, "status", status) == status
    else:
        assert not isinstance(said, Exception), said
        assert list(differences(case.says, said, world.of)) == []


def methods(api: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(api, inspect.isfunction) if not name.startswith("_")}


def test_every_method_has_a_case() -> None:
    called = inspect.getsource(cases)
    uncalled = {name for name in methods(OrganizationAPI) if f".api.{name}(" not in called}
    assert uncalled == {"until", "execute_file", "file_run"}
    assert {name for name in methods(InstallationAPI) if f".client.{name}(" not in called} == {"call"}
    assert CASES.keys() <= BY_NAME.keys()
