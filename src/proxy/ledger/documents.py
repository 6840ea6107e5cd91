"""Documents, undecided events and reports, as SQL. Called by the writer."""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from proxy.ledger.records import Report
from proxy.ledger.sql import column


def put_document(connection: apsw.Connection, name: str, body: bytes) -> None:
    """Write a document over the former one."""
    connection.execute("INSERT OR REPLACE INTO document (name, body) VALUES (?, ?)", (name, body))


def document(connection: apsw.Connection, name: str) -> bytes | None:
    """Read a document."""
    body: bytes | None = connection.execute("SELECT body FROM document WHERE name = ?", (name,)).get
    return body


def put_early_event(connection: apsw.Connection, event: str) -> None:
    """Write one more event after those that are kept."""
    connection.execute("INSERT INTO undecided (event) VALUES (?)", (event,))


def early_events(connection: apsw.Connection) -> list[str]:
    """Read all events, oldest first."""
    return column(connection.execute("SELECT event FROM undecided ORDER BY id"))


def forget_early_events(connection: apsw.Connection) -> None:
    """Delete all events."""
    connection.execute("DELETE FROM undecided")


def next_report_id(connection: apsw.Connection) -> int:
    """Return an id above every report that is kept."""
    highest: int = connection.execute("SELECT coalesce(max(id), 0) FROM report").get
    return highest + 1


def put_report(connection: apsw.Connection, report_id: int, key: str, frame: str) -> None:
    """Write a frame that must reach ITH."""
    connection.execute(
        "INSERT INTO report (id, key, frame) VALUES (?, ?, ?)", (report_id, key, frame)
    )


def reports(connection: apsw.Connection) -> list[Report]:
    """Read all frames, oldest first."""
    return [
        Report(*row) for row in connection.execute("SELECT id, key, frame FROM report ORDER BY id")
    ]


def forget_reports(connection: apsw.Connection, report_ids: Iterable[int]) -> None:
    """Delete frames that are not to be sent again."""
    connection.executemany(
        "DELETE FROM report WHERE id = ?", ((report_id,) for report_id in report_ids)
    )
