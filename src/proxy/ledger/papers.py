"""Documents and reports, as SQL. Called by the writer."""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from proxy.ledger.records import Report


def put_document(connection: apsw.Connection, name: str, body: bytes) -> None:
    """Write a document over the former one."""
    connection.execute("INSERT OR REPLACE INTO document (name, body) VALUES (?, ?)", (name, body))


def document(connection: apsw.Connection, name: str) -> bytes | None:
    """Read a document."""
    body: bytes | None = connection.execute("SELECT body FROM document WHERE name = ?", (name,)).get
    return body


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
    """Delete frames that have reached ITH."""
    connection.executemany(
        "DELETE FROM report WHERE id = ?", ((report_id,) for report_id in report_ids)
    )
