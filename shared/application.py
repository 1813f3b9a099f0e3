"""Celery's application, on the broker that it is given: Celery's own would take the one that the environment names."""

import shared.without_extras  # noqa: F401, I001 # first: it must come before Celery

from collections.abc import Mapping
from typing import Any

from celery import Celery


class Application(Celery):  # type: ignore[misc] # Celery ships no types
    """What every application of ours is. No connection is made.

    Args:
        name: its own.
        url: address of the broker.
        publishing: what connections that publish are made with: `shared.celery_settings.publishing_options`.
        options: Celery's own.
    """

    def __init__(self, name: str, url: str, publishing: Mapping[str, Any] | None = None, **options: Any) -> None:
        # No fixups: Celery's own would import Django wherever DJANGO_SETTINGS_MODULE is set.
        super().__init__(name, fixups=[], **options)
        self._url, self._publishing = url, dict(publishing or {})

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Celery's own, but to that broker."""
        return super().connection_for_read(url or self._url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Likewise, and a publish never hangs on it."""
        return super().connection_for_write(url or self._url, **self._publishing | options)

    def send_task(self, *args: Any, **options: Any) -> Any:
        """Celery's own, through which every message goes, and no message is lost to a connection that was.

        Where one is lost and found again while a queue is declared, kombu 5.7 goes on with the channel of the lost one,
        and fails before anything is sent, with an error that nobody takes for a broker's.
        """
        try:
            return super().send_task(*args, **options)
        except AttributeError:
            return super().send_task(*args, **options)
