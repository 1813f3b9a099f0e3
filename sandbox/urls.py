"""The root of the URLs: Django wants a module here, the routes themselves are the backend's."""

from __future__ import annotations

from sandbox.backend.urls import handler404, urlpatterns

__all__ = ["handler404", "urlpatterns"]
