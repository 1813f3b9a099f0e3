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
from urllib.parse import unquote, urlsplit, urlunsplit

import django
import psycopg
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connections
from gunicorn.app.base import BaseApplication
from psycopg import sql

from sandbox.backend.faults import FaultInjector
from sandbox.config import Config

KEEPALIVE_SECONDS = 75
# With this the master ends its worker within two seconds of SIGTERM, whatever a request is waiting for.
GRACE_SECONDS = 1


def serve(config: Config, bind: str, ready_file: Path | None) -> None:
    """Make the tables, then serve until SIGTERM. `ready_file` gets `http://HOST:PORT` when requests are answered."""
    config.data_dir.mkdir(parents=True, exist_ok=True)
    prepare_database(config.database_url)
    _Server(bind, config.threads, ready_file).run()


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
    name = unquote(parts.path.lstrip("/"))
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
            "worker_exit": _leave,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Runs in the worker, before it serves."""
        # After the fork, because its threads are the worker's; before any request, because two that come first
        # together would make two pools.
        from sandbox.backend.tools.pool import pool  # noqa: PLC0415

        pool()
        return FaultInjector(get_wsgi_application())

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


def _leave(_arbiter: Any, worker: Any) -> None:
    """End the worker at once, when it was told to or its master is gone.

    The interpreter would wait for the end of every thread: of clients that wait for minutes, of tools that read. What
    is under way is safe: transactions are rolled back, claims are taken over by the next process, and the tools'
    processes end with their input.
    """
    if worker.booted:  # else its exit status is the reason, and for the master
        sys.stderr.flush()
        os._exit(0)
