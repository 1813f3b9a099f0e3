"""Scheduled pipelines, over the fakes."""

from typing import Any

import pytest

from general.schedule import Due, start
from shared.backend_models import CreatedExecution
from shared.errors import BrokerError
from shared.models import PipelineStatus
from shared.platform_models import Pipeline
from tests.fakes import FakeApp, FakeBackend


class Scheduled(FakeBackend):
    """A backend with one pipeline."""

    def __init__(self) -> None:
        super().__init__(is_api=False)
        self.pipeline_statuses: list[PipelineStatus] = []
        vars(self)["pipeline"] = self._pipeline

    def _pipeline(self, _pipeline_id: str) -> Any:
        said = {"id": "pipe", "workflow": "wf", "organization": 1, "active": True}
        return Pipeline.model_validate(said | {"is_api": False, "pipeline_name": "pipe"})

    def create_execution(self, _execution: Any) -> CreatedExecution:
        return CreatedExecution(execution_id="ex", status="PENDING")

    def pipeline_status(self, _pipeline_id: str, status: PipelineStatus, *, is_end: bool) -> None:
        assert not is_end
        self.pipeline_statuses.append(status)


def test_a_kick_off_whose_confirmation_was_lost_does_not_overwrite_how_it_ended() -> None:
    backend = Scheduled()
    app = FakeApp(backend=backend)
    schedule = Due(organization_id="org", pipeline_id="pipe")
    app.broker_is_away = True
    with pytest.raises(BrokerError):
        start(app.call(), schedule)
    app.broker_is_away = False
    assert start(app.call(), schedule)["execution_id"] == "ex"
    assert backend.pipeline_statuses == ["INPROGRESS"]
