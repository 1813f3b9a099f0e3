"""Health, organizations and configuration."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import InternalView, RefusedError
from sandbox.backend.models import Configuration, Organization
from sandbox.backend.tenancy import find_organization

# Key -> the value of an organization that set none.
DEFAULTS: dict[str, Any] = {"MAX_PARALLEL_FILE_BATCHES": 1, "NOTIFICATION_CLUB_INTERVAL": 300}


class Health(InternalView):
    """GET `v1/health/`: an unknown organization comes back as it was sent."""

    def get(self, _request: Request) -> Response:
        return Response(
            {
                "status": "healthy",
                "service": "internal_api",
                "version": "1.0.0",
                "timestamp": None,
                "authenticated": True,
                "organization_id": self.tenant.name,
            }
        )


class OrganizationContext(InternalView):
    """GET `v1/organization/{id}/context/`: `organization_id` is the numeric key, as a string."""

    failure = "Failed to get organization context"

    def get(self, _request: Request, identifier: str) -> Response:
        row = find_organization(identifier) or get_object_or_404(Organization, organization_id=identifier)
        return Response(
            {
                "organization_id": str(row.pk),
                "organization_name": row.display_name,
                "organization_slug": "",
                "created_at": row.created_at.isoformat(),
                "settings": {"subscription_active": True, "features_enabled": []},
            }
        )


class ConfigurationValue(InternalView):
    """GET `v1/configuration/{key}/?organization_id=`: the header plays no part."""

    def get(self, request: Request, key: str) -> Response:
        identifier = request.query_params.get("organization_id")
        if not identifier:
            raise _failure(400, "organization_id parameter is required", config_key=key)
        organization = find_organization(identifier)
        if organization is None:
            raise _failure(404, f"Organization {identifier} not found", config_key=key)
        if key not in DEFAULTS:
            message = f"Unknown configuration key: {key}"
            raise _failure(400, message, config_key=key, organization_id=identifier)
        own = Configuration.objects.filter(organization=organization, key=key).first()
        data = {
            "config_key": key,
            "value": own.value if own else DEFAULTS[key],
            "organization_id": identifier,
            "has_organization_override": own is not None,
        }
        return Response({"success": True, "data": data})


def configured(organization: Organization, key: str) -> Any:
    """The organization's own value of a configuration key, or its default."""
    own = Configuration.objects.filter(organization=organization, key=key).first()
    return own.value if own else DEFAULTS[key]


def _failure(status: int, message: str, **more: Any) -> RefusedError:
    return RefusedError(status, {"success": False, "error": message, **more})
