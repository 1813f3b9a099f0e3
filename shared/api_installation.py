"""The internal API of what belongs to no organization, or to all of them (contract section 2)."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from shared import endpoints
from shared import platform_models as models
from shared.backend_models import Health
from shared.backend_protocol import Request
from shared.deadline import Deadline

M = TypeVar("M", bound=BaseModel)


class InstallationAPI:
    """The backend itself. Every method raises as `call` does."""

    def call(self, request: Request[M], organization_id: str | None = None, within: Deadline | None = None) -> M:
        """What sends a request and gives its answer."""
        raise NotImplementedError

    def health(self, within: Deadline | None = None) -> Health:
        """What the backend says of itself (contract section 2, health); it looks at the key, and at no organization.

        Raises:
            UnauthorizedError: the key is not the backend's.
        """
        return self.call(endpoints.HEALTH(), within=within)

    def dispatch_notifications(self, within: Deadline | None = None) -> models.BufferRun:
        """Have all events sent that are due, of every organization (contract section 2, buffer)."""
        return self.call(endpoints.BUFFER_RUN({}), within=within)

    def process_log_history(self, within: Deadline | None = None) -> models.LogRun:
        """Have the log records that wait in Redis moved to the database, of every organization (contract section 2)."""
        return self.call(endpoints.LOG_HISTORY({}), within=within)

    def emit(self, room: str, event: str, data: Mapping[str, Any], within: Deadline | None = None) -> None:
        """Show something to those who watch a room, once (contract section 2, logs). Whether anybody does is not said.

        Raises:
            BackendRefusedError: with status 400, without a room or an event.
        """
        self.call(endpoints.EMISSION({"room": room, "event": event, "data": dict(data)}), within=within)
