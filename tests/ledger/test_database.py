from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from proxy.errors import LedgerError
from proxy.ledger.database import APPLICATION_ID, MIGRATIONS, close_database, open_database


def leave_unclean(path: Path, into: Path, rows: int = 2000) -> Path:
    """Copy the files of an open ledger, as a crash leaves them."""
    connection, _ = open_database(path)
    with connection:
        connection.executemany(
            "INSERT INTO report (id, key, frame) VALUES (?, 'k', ?)",
            [(n, f"frame {n:08}") for n in range(rows)],
        )
    into.mkdir()
    for file in path.parent.glob(path.name + "*"):
        shutil.copy(file, into / file.name)
    close_database(connection)
    return into / path.name


def test_file_and_directory_are_the_owners_alone(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        connection, _ = open_database(tmp_path / "deep" / "state" / "ledger.db")
        connection.execute("INSERT INTO document VALUES ('a', x'00')")
        files = list((tmp_path / "deep" / "state").iterdir())
        assert {f.name for f in files} == {"ledger.db", "ledger.db-wal"}
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
        assert stat.S_IMODE((tmp_path / "deep" / "state").stat().st_mode) == 0o700
        close_database(connection)
    finally:
        os.umask(former)


def test_a_ledger_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch(mode=0o644)
    close_database(open_database(path)[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "ledger.db").symlink_to(tmp_path / "real")
    with pytest.raises(LedgerError, match="cannot be opened"):
        open_database(tmp_path / "ledger.db")


def test_the_promised_settings_are_in_force(tmp_path: Path) -> None:
    connection, _ = open_database(tmp_path / "ledger.db")
    assert connection.pragma("journal_mode") == "wal"
    assert connection.pragma("synchronous") == 2
    assert connection.pragma("foreign_keys") == 1
    assert connection.pragma("secure_delete") == 1
    assert connection.pragma("application_id") == APPLICATION_ID
    tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'")
    assert all(strict for name, strict in tables if not name.startswith("sqlite_"))
    close_database(connection)


def test_an_orderly_close_leaves_one_file_and_no_suspicion(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for _ in range(2):
        connection, was_unclean = open_database(path)
        assert not was_unclean
        connection.execute("INSERT OR REPLACE INTO document VALUES ('a', x'00')")
        close_database(connection)
        assert [f.name for f in tmp_path.iterdir()] == ["ledger.db"]


def test_a_crash_is_noticed_and_everything_committed_is_there(tmp_path: Path) -> None:
    crashed = leave_unclean(tmp_path / "ledger.db", tmp_path / "crashed")
    connection, was_unclean = open_database(crashed)
    assert was_unclean
    assert connection.execute("SELECT count(*) FROM report").get == 2000
    close_database(connection)


def test_a_damaged_ledger_is_refused_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    close_database(open_database(path)[0])
    crashed = leave_unclean(path, tmp_path / "crashed")
    # A clean start of the same file would not look; the index no longer fits its table.
    connection, _ = open_database(crashed)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, '(correlation_id', '(workspace_id')"
        " WHERE name = 'dispatch_by_order'"
    )
    connection.execute(
        "INSERT INTO dispatch (correlation_id, workspace_id, entity_type, entity_id, priority,"
        " accepted_at) VALUES ('c', 'w', 'scan', 'e', 'low', 0)"
    )
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in crashed.parent.glob("ledger.db*"):
        shutil.copy(file, broken / file.name)
    connection.close()
    with pytest.raises(LedgerError, match="damaged") as caught:
        open_database(broken / "ledger.db")
    assert "keep a copy" in caught.value.hint


def test_garbage_in_the_middle_is_refused_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection, _ = open_database(path)
    with connection:
        for n in range(3000):
            connection.execute("INSERT INTO report VALUES (?, 'k', 'frame')", (n,))
    close_database(connection)
    crashed = leave_unclean(path.with_name("other.db"), tmp_path / "crashed", rows=1)
    del crashed
    content = bytearray(path.read_bytes())
    for page in range(len(content) // 4096 // 2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(content)
    path.with_name("ledger.db-wal").write_bytes(b"\0" * 100)
    with pytest.raises(LedgerError, match="damaged"):
        open_database(path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(LedgerError, match="damaged"):
        open_database(path)


def test_another_programs_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (a)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="not a ledger") as caught:
        open_database(path)
    assert "--state-dir" in caught.value.hint
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection, _ = open_database(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    close_database(connection)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=f"schema {len(MIGRATIONS) + 1}, .* up to") as caught:
        open_database(path)
    assert "newer ith-proxy" in caught.value.hint
    assert path.read_bytes() == before


def test_a_failed_migration_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    with monkeypatch.context() as patch:
        patch.setattr("proxy.ledger.database.MIGRATIONS", ("schema.sql", "schema.sql"))
        with pytest.raises(LedgerError):
            open_database(path)
    connection, _ = open_database(path)
    assert connection.pragma("user_version") == len(MIGRATIONS)
    close_database(connection)


def test_two_programs_cannot_share_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection, _ = open_database(path)
    with pytest.raises(LedgerError, match="in use by another process") as caught:
        open_database(path)
    assert "--state-dir" in caught.value.hint
    reader = "import sqlite3, sys; sqlite3.connect(sys.argv[1], 0).execute('PRAGMA user_version')"
    command = [sys.executable, "-c", reader, str(path)]
    other = subprocess.run(command, capture_output=True, check=False)
    assert b"locked" in other.stderr
    close_database(connection)
    close_database(open_database(path)[0])


def test_deleted_patient_data_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection, _ = open_database(path)
    connection.execute("INSERT INTO document VALUES ('a', CAST('CANARY^PATIENT' AS BLOB))")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"CANARY^PATIENT" in path.read_bytes()
    connection.execute("DELETE FROM document")
    close_database(connection)
    assert b"CANARY^PATIENT" not in path.read_bytes()


def test_the_sqlite_in_use_has_no_known_fault_in_the_log() -> None:
    version = tuple(map(int, apsw.sqlite_lib_version().split(".")))
    assert version >= (3, 51, 3)
