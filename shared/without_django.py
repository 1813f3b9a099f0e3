"""Import the parts of Celery that look for Django while it cannot be found. Imported before anything of Celery's.

Where Django is installed, kombu and Celery import `django.utils` to recognise its lazy strings. A worker has none, and
must be the same process whatever is installed beside it.
"""

import sys
from importlib import import_module

_hidden = "django" not in sys.modules
if _hidden:
    sys.modules["django"] = None  # type: ignore[assignment] # Python's own way to make an import fail
import_module("kombu.utils.json")
import_module("celery.utils.collections")
if _hidden:
    del sys.modules["django"]
