"""Helper functions that all statements of the ledger share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import apsw


@overload
def text(value: str) -> str: ...
@overload
def text(value: None) -> None: ...
@overload
def text(value: str | None) -> str | None: ...
def text(value: str | None) -> str | None:
    """Make free text from outside storable: SQLite takes no lone surrogates."""
    return value if value is None else value.encode("utf-8", "replace").decode("utf-8")


def column(cursor: apsw.Cursor) -> list[Any]:
    """Return the only column of all rows."""
    return [value for (value,) in cursor]


def choose(connection: apsw.Connection, ids: Iterable[int] = ()) -> None:
    """Put exactly these ids into the temporary table `chosen`."""
    connection.execute("DELETE FROM chosen")
    connection.executemany("INSERT INTO chosen VALUES (?)", ((row_id,) for row_id in ids))
