"""Django's SQLite backend with one lock for all writers of the process.

SQLite lets one connection write at a time and makes the others ask again after a sleep, which with 16 threads
starves some of them for half a second. A lock in the process hands over at once. (Django finds a database engine by
the name of its package, and wants this module to be called `base`.)
"""

from __future__ import annotations

import threading
from typing import Any

from django.db.backends.sqlite3 import base

_writing = threading.Lock()
_WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE")


class _Cursor(base.SQLiteCursorWrapper):  # type: ignore[misc]
    """Holds the lock for a statement that is a transaction of its own."""

    def execute(self, query: str, params: Any = None) -> Any:
        if self.connection.in_transaction or not query.startswith(_WRITES):
            return super().execute(query, params)
        with _writing:
            return super().execute(query, params)


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]
    """Holds the lock from BEGIN to COMMIT or ROLLBACK."""

    _holding = False

    def create_cursor(self, _name: str | None = None) -> Any:
        return self.connection.cursor(factory=_Cursor)

    def _start_transaction_under_autocommit(self) -> None:
        _writing.acquire()
        self._holding = True
        try:
            super()._start_transaction_under_autocommit()
        except base.Database.Error:
            self._let_go()
            raise

    def _commit(self) -> Any:
        try:
            return super()._commit()
        finally:
            self._let_go()

    def _rollback(self) -> Any:
        try:
            return super()._rollback()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._holding:
            self._holding = False
            _writing.release()
