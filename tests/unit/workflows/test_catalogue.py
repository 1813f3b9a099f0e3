"""Which workflows a process knows, and what it refuses to start with."""

import sys
from types import ModuleType

import pytest

from config.workers import PROFILES
from shared.workflows.catalogue import load, refuse_unusable
from shared.workflows.context import TaskContext
from shared.workflows.declaration import BaseWorkflow, task, workflow
from shared.workflows.errors import DeclarationError, UnknownWorkflowError
from tests.fakes import settings


def long_one() -> type[BaseWorkflow]:
    @workflow(name="long")
    class Long(BaseWorkflow):
        @task(timeout_minutes=31)
        def think(self, input_data: None, ctx: TaskContext) -> None: ...

    return Long


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("long_workflows")
    vars(made)["Long"] = long_one()
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_a_step_that_rabbitmq_would_end_stops_the_start_of_who_takes_steps(module: ModuleType) -> None:
    named = {"WORKFLOW_MODULES": module.__name__, "CELERY_BROKER_URL": "amqp://user:pass@rabbit.invalid//"}
    with pytest.raises(DeclarationError, match=r"step think of workflow long may take 1860 s.*CONSUMER_TIMEOUT, 1800"):
        refuse_unusable(PROFILES["general"], settings(**named))
    assert list(refuse_unusable(PROFILES["callback"], settings(**named))) == []
    patient = refuse_unusable(PROFILES["general"], settings(**named, BROKER_CONSUMER_TIMEOUT="3600"))
    assert [one.name for one in patient] == ["long"]
    on_redis = named | {"CELERY_BROKER_URL": "redis://redis.invalid/0"}
    assert [one.name for one in refuse_unusable(PROFILES["general"], settings(**on_redis))] == ["long"]


def test_a_name_is_declared_once(module: ModuleType) -> None:
    vars(module)["Longer"] = long_one()
    with pytest.raises(DeclarationError, match=r"workflow long is declared twice, by .*Long and .*Long; rename one"):
        load([module.__name__])


def test_a_name_that_is_none_is_answered_with_the_nearest(module: ModuleType) -> None:
    with pytest.raises(UnknownWorkflowError, match=r"no workflow 'lond' here; did you mean 'long'\?"):
        load([module.__name__]).named("lond")
    with pytest.raises(UnknownWorkflowError, match="known are: none; WORKFLOW_MODULES names the modules"):
        load([]).named("lond")
