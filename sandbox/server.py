"""Prepare the database and serve the application with gunicorn.

One process and many threads: the counters, the switches and the tool pool are the process's own, and a test can
ask that one process what happened.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import django
import psycopg
from django.core.management import call_command
from django.db import connections
from gunicorn.app.base import BaseApplication
from psycopg import sql

from sandbox.config import Config

KEEPALIVE_SECONDS = 75
# With this the master ends its worker within two seconds of SIGTERM, whatever a request is waiting for.
GRACE_SECONDS = 1


def serve(config: Config, bind: str, threads: int, ready_file: Path | None) -> None:
    """Make the tables, then serve until SIGTERM. `ready_file` gets `http://HOST:PORT` when requests are answered."""
    config.data_dir.mkdir(parents=True, exist_ok=True)
    prepare_database(config.database_url)
    sys.argv = sys.argv[:1]  # gunicorn reads the command line of whoever starts it
    _Server(bind, threads, ready_file).run()


def prepare_database(database_url: str) -> None:
    """Create the database if it is missing (PostgreSQL), then the tables."""
    if database_url.startswith(("postgres:", "postgresql:")):
        _create_postgres(database_url)
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    # The worker is forked from this process: an open connection would be shared by both.
    connections.close_all()


def _create_postgres(database_url: str) -> None:
    parts = urlsplit(database_url)
    name = parts.path.lstrip("/")
    server = urlunsplit(("postgresql", parts.netloc, "/postgres", parts.query, ""))
    with psycopg.connect(server, autocommit=True, connect_timeout=10) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if found is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with its settings given by code: no configuration file is looked for."""

    def __init__(self, bind: str, threads: int, ready_file: Path | None) -> None:
        self._bind = bind
        self._threads = threads
        self._ready_file = ready_file
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": self._bind,
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._threads,
            "worker_connections": 2_000,
            "keepalive": KEEPALIVE_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "timeout": 120,
            "loglevel": "warning",
            "control_socket_disable": True,
            "post_worker_init": self._announce,
            "worker_exit": _stop_tools,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        # In the worker, after the fork: its threads, pools and connections are not to be shared.
        from sandbox.wsgi import application  # noqa: PLC0415

        return application

    def _announce(self, worker: Any) -> None:
        """Runs in the worker once it can answer, so that a reader of the file never meets a closed door."""
        listener: socket.socket = worker.sockets[0].sock
        host, port = listener.getsockname()[:2]
        url = f"http://{host}:{port}"
        if self._ready_file is not None:
            temporary = self._ready_file.with_name(f".{self._ready_file.name}.{os.getpid()}")
            temporary.write_text(url, encoding="utf-8")
            temporary.replace(self._ready_file)
        sys.stderr.write(f"sandbox: serving {url}\n")


def _stop_tools(_arbiter: Any, _worker: Any) -> None:
    from sandbox.backend.tools import pool  # noqa: PLC0415 (the master never loads it)

    pool.stop()
