"""The WSGI application: Django, wrapped in the fault injection that `/sandbox/switches` steers."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandbox.settings")

django_application = get_wsgi_application()

# After get_wsgi_application: the wrapper counts through modules that need Django to be set up.
from sandbox.backend.faults import FaultInjector  # noqa: E402

application = FaultInjector(django_application)
