"""Django settings of the reference backend.

It is a Django and DRF application because the real backend is one: the validation messages, the parse errors and
the malformed-UUID texts that the recordings hold are Django's and DRF's own, and a copy of them would drift.

There are no migrations: the tables are made by `migrate --run-syncdb` at start (see `server.py`), and a sandbox
whose models changed is thrown away with its data directory.
"""

from __future__ import annotations

import logging.config
from typing import Any

import dj_database_url

from sandbox.config import Config

SANDBOX = Config.from_env()

DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "sandbox.backend.urls"
INSTALLED_APPS = ["sandbox.backend"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Slashes, authentication and unhandled errors all differ from Django's defaults; one middleware does the three.
MIDDLEWARE = ["sandbox.backend.middleware.BackendMiddleware"]
APPEND_SLASH = False

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    # django.contrib.auth is not installed, so an anonymous user cannot be built.
    "UNAUTHENTICATED_USER": None,
    "EXCEPTION_HANDLER": "sandbox.backend.http.standard_errors",
}


def _database() -> dict[str, Any]:
    """SQLite needs three things for many threads: WAL, patience, and write locks taken at BEGIN, because a lock
    that is upgraded in mid-transaction fails at once however patient the connection is."""
    settings: dict[str, Any] = dict(dj_database_url.parse(SANDBOX.database_url))
    settings["CONN_MAX_AGE"] = None
    if "sqlite" in settings["ENGINE"]:
        settings["ENGINE"] = "sandbox.sqlite"
        settings["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    else:
        settings["CONN_HEALTH_CHECKS"] = True
    return settings


DATABASES = {"default": _database()}

# One request may bring 10,000 documents; they are streamed to disk (backend/staging.py), never held.
DATA_UPLOAD_MAX_NUMBER_FILES = 20_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1_000
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024 * 1024

LOGGING_CONFIG = None
logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {
            "sandbox": {"handlers": ["stderr"], "level": SANDBOX.log_level, "propagate": False},
            # Django repeats every refused request; the sandbox's own log says why it was refused.
            "django.request": {"handlers": ["stderr"], "level": "CRITICAL", "propagate": False},
        },
    }
)
