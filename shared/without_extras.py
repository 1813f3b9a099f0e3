"""Import what looks for Django or OpenTelemetry while neither can be found. Imported before anything of Celery's.

Where Django is installed, kombu and Celery import `django.utils` to recognise its lazy strings; where OpenTelemetry is,
redis imports its metrics, in 0.1 s and 3 MB. A worker has no use for either, and must be the same process whatever is
installed beside it. Our own spans import what they need later (`shared/tracing.py`).
"""

import sys
from importlib import import_module

_hidden = {"django", "opentelemetry"} - sys.modules.keys()
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment] # Python's own way to make an import fail
for _name in ("kombu.utils.json", "celery.utils.collections", "redis"):
    import_module(_name)
for _name in _hidden:
    del sys.modules[_name]
