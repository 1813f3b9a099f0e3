"""Whose rows a request may see: `X-Organization-ID`, a string id or a numeric key.

An unknown or missing organization is not refused here. Two families of tables differ, as in the real backend:
executions and files are seen by a request *without* the header, workflows and pipelines are not.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet

from sandbox.backend.models import ApiDeployment, Execution, FileExecution, Organization, Pipeline, Workflow

_known: dict[str, Organization] = {}


def find_organization(identifier: str | None) -> Organization | None:
    """By string id first, then by numeric key. What is found is kept: organizations are made and never changed, and
    every request asks for one."""
    if not identifier:
        return None
    if identifier in _known:
        return _known[identifier]
    by_key = Q(pk=int(identifier)) if identifier.isdecimal() and len(identifier) < 18 else Q(pk__in=[])
    found = list(Organization.objects.filter(Q(organization_id=identifier) | by_key))
    found.sort(key=lambda row: row.organization_id != identifier)
    if found:
        _known[identifier] = found[0]
    return found[0] if found else None


def as_uuid(text: Any) -> uuid.UUID:
    """The UUID, or the error Django's own field raises, whose text the recordings hold."""
    if isinstance(text, uuid.UUID):
        return text
    try:
        return uuid.UUID(text)
    except (ValueError, TypeError, AttributeError):
        raise ValidationError("“%(value)s” is not a valid UUID.", params={"value": text}) from None


def uuid_or_none(text: Any) -> uuid.UUID | None:
    """For ids that come from elsewhere and may be anything."""
    try:
        return as_uuid(text)
    except ValidationError:
        return None


@dataclass(frozen=True)
class Tenant:
    """The header as it came, and the organization behind it, looked up when first asked for."""

    header: str | None

    @cached_property
    def organization(self) -> Organization | None:
        return find_organization(self.header)

    @property
    def name(self) -> str | None:
        """The string id where it is known, else the header itself."""
        return self.organization.organization_id if self.organization else self.header

    def owned(self, rows: QuerySet[Any], through: str = "organization") -> QuerySet[Any]:
        """Rows of the organization; none without one."""
        return rows.filter(**{through: self.organization}) if self.organization else rows.none()

    def visible(self, rows: QuerySet[Any], through: str) -> QuerySet[Any]:
        """Rows of the organization; all of them without a header."""
        return rows if self.header is None else self.owned(rows, through)

    def workflows(self) -> QuerySet[Any]:
        return self.owned(Workflow.objects.select_related("organization"))

    def pipelines(self) -> QuerySet[Any]:
        return self.owned(Pipeline.objects.select_related("workflow"))

    def deployments(self) -> QuerySet[Any]:
        return self.owned(ApiDeployment.objects.select_related("workflow", "organization"))

    def executions(self) -> QuerySet[Any]:
        rows = Execution.objects.select_related("workflow")
        return self.visible(rows, "workflow__organization")

    def files(self) -> QuerySet[Any]:
        return self.visible(FileExecution.objects.all(), "execution__workflow__organization")
