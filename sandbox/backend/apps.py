"""The Django application that holds the backend's tables."""

from __future__ import annotations

from django.apps import AppConfig


class BackendConfig(AppConfig):  # type: ignore[misc]
    """Registered by name in the settings; it has no start-up work of its own."""

    name = "sandbox.backend"
    label = "backend"
