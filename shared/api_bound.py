"""What every view of the internal API stands on: who asks, until when, and the one way to ask."""

from typing import Protocol, Self, TypeVar

from pydantic import BaseModel

from shared.backend_protocol import Request
from shared.deadline import Deadline

M = TypeVar("M", bound=BaseModel)


class Caller(Protocol):
    """What sends a request and gives its answer: `InternalAPIClient`."""

    def call(self, request: Request[M], organization_id: str | None = None, within: Deadline | None = None) -> M: ...


class BoundAPI:
    """The internal API as one organization sees it, for one piece of work.

    Attributes:
        organization_id: the organization's string id, sent with every request as `X-Organization-ID`.
    """

    def __init__(self, caller: Caller, organization_id: str, within: Deadline | None = None) -> None:
        self._caller, self._within = caller, within
        self.organization_id = organization_id

    def until(self, deadline: Deadline) -> Self:
        """The same, for work that must end by that deadline: it cuts every request and every wait."""
        return type(self)(self._caller, self.organization_id, deadline)

    def _call(self, request: Request[M]) -> M:
        return self._caller.call(request, self.organization_id, self._within)
