"""The destination table of an ETL or TASK workflow: a real table in the same database, made on demand.

`file_execution_id` is unique, so a file that is run again writes no second row.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
# Tables that are not a workflow's to write.
_RESERVED = ("backend_", "django_", "sqlite_", "pg_")
_made: set[str] = set()


def checked(table: str) -> str:
    """The name, if it is one that a workflow may write: it is put into SQL, where no parameter can stand."""
    if not _NAME.fullmatch(table) or table.lower().startswith(_RESERVED):
        raise ValueError(f"{table!r} cannot be a destination table")
    return table


def write(table: str, file_execution_id: uuid.UUID, file_name: str, data: dict[str, Any]) -> None:
    """One row for one file execution, however often this is called. To be called inside a transaction."""
    _make(table)
    transaction.on_commit(lambda: _made.add(table))
    sql = (
        f"INSERT INTO {connection.ops.quote_name(table)} (file_execution_id, file_name, data, created_at) "  # noqa: S608
        "VALUES (%s, %s, %s, %s) ON CONFLICT (file_execution_id) DO NOTHING"
    )
    # PostgreSQL's text knows no NUL, and a document may hold one.
    text = json.dumps(data).replace("\\u0000", "")
    with connection.cursor() as cursor:
        cursor.execute(sql, [str(file_execution_id), file_name, text, timezone.now().isoformat()])


def rows_of_files(tables: set[str]) -> Counter[str]:
    """Rows in these tables by their file execution; a table that nobody wrote to has none."""
    found: Counter[str] = Counter()
    with connection.cursor() as cursor:
        for table in sorted(tables & set(connection.introspection.table_names())):
            cursor.execute(f"SELECT file_execution_id FROM {connection.ops.quote_name(table)}")  # noqa: S608
            found.update(key for (key,) in cursor.fetchall())
    return found


def count(tables: set[str]) -> int:
    """Rows in these tables; one that nobody wrote to has none."""
    present = tables & set(connection.introspection.table_names())
    total = 0
    with connection.cursor() as cursor:
        for table in sorted(present):
            cursor.execute(f"SELECT COUNT(*) FROM {connection.ops.quote_name(table)}")  # noqa: S608
            total += cursor.fetchone()[0]
    return total


def _make(table: str) -> None:
    if table in _made:
        return
    data_type = "jsonb" if connection.vendor == "postgresql" else "text"
    with connection.cursor() as cursor:
        # Two transactions may make one table at the same time, and PostgreSQL lets only one succeed.
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [table])
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {connection.ops.quote_name(table)} ("
            "file_execution_id varchar(36) NOT NULL UNIQUE, file_name varchar(255) NOT NULL, "
            f"data {data_type} NOT NULL, created_at varchar(40) NOT NULL)"
        )
