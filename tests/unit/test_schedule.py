"""Scheduled pipelines, over the fakes."""

from dataclasses import replace
from typing import Any

import pytest

from general.schedule import Due, start
from shared.backend_models import CreatedExecution, ExecutionRow
from shared.errors import BackendUnavailableError, BrokerError
from shared.models import PipelineStatus
from shared.platform_models import Pipeline
from tests.fakes import FakeApp, FakeBackend

DUE = Due(organization_id="org", pipeline_id="pipe")


class Scheduled(FakeBackend):
    """A backend with one pipeline."""

    def __init__(self) -> None:
        super().__init__(is_api=False)
        self.pipeline_statuses: list[PipelineStatus] = []
        self.created: list[str] = []
        self.answers_are_lost = False
        vars(self)["pipeline"] = self._pipeline

    def _pipeline(self, _pipeline_id: str) -> Any:
        said = {"id": "pipe", "workflow": "wf", "organization": 1, "active": True}
        return Pipeline.model_validate(said | {"is_api": False, "pipeline_name": "pipe"})

    def create_execution(self, _execution: Any) -> CreatedExecution:
        self.created.insert(0, "ex" if not self.created else f"ex{len(self.created)}")
        if self.answers_are_lost:
            raise BackendUnavailableError("the connection was reset")
        return CreatedExecution(execution_id=self.created[0], status="PENDING")

    def executions(self, _workflow_id: str, _statuses: Any) -> list[ExecutionRow]:
        return [ExecutionRow(id=one, workflow_id="wf", status="PENDING", pipeline_id="pipe") for one in self.created]

    def pipeline_status(self, _pipeline_id: str, status: PipelineStatus, *, is_end: bool) -> None:
        assert not is_end
        self.pipeline_statuses.append(status)


def test_a_kick_off_whose_confirmation_was_lost_does_not_overwrite_how_it_ended() -> None:
    backend = Scheduled()
    app = FakeApp(backend=backend)
    app.broker_is_away = True
    with pytest.raises(BrokerError):
        start(app.call(), DUE)
    app.broker_is_away = False
    assert start(app.call(), DUE)["execution_id"] == "ex"
    assert backend.pipeline_statuses == ["INPROGRESS"]


def test_of_two_messages_whose_answers_were_lost_each_takes_an_execution_of_its_own() -> None:
    """Were it the same one, the other would be pending for ever."""
    app = FakeApp(backend=(backend := Scheduled()))
    backend.answers_are_lost = True
    calls = [replace(app.call(), task_id=task_id) for task_id in ("one", "other")]
    for call in calls:
        with pytest.raises(BackendUnavailableError):
            start(call, DUE)
    backend.answers_are_lost = False
    assert [start(call, DUE)["execution_id"] for call in calls] == ["ex1", "ex"]
    assert len(backend.created) == 2


def test_whose_execution_another_message_took_takes_the_other_s() -> None:
    app = FakeApp(backend=(backend := Scheduled()))
    backend.answers_are_lost = True
    unsure, calm = (replace(app.call(), task_id=task_id) for task_id in ("unsure", "calm"))
    with pytest.raises(BackendUnavailableError):
        start(unsure, DUE)
    backend.answers_are_lost = False
    create = backend.create_execution
    # Between the answer and our note of it, the unsure message looks what is pending.
    vars(backend)["create_execution"] = lambda execution: [create(execution), start(unsure, DUE)][0]
    assert start(calm, DUE)["execution_id"] == "ex"
    assert app.state.begin_creation("unsure") == "ex1"
    assert len(backend.created) == 2
