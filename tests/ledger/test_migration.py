"""A ledger that an earlier program wrote is brought to the present schema, and loses nothing."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import apsw
import msgspec
from trio.testing import MockClock

from proxy.ledger import Counts, Ledger, Undeliverable
from proxy.ledger.database import APPLICATION_ID, MIGRATIONS, close_database, open_database
from proxy.runtime.offload import Inline
from tests.ledger.make import SESSION, order

FIXTURE = Path(__file__).parent / "schema_1.sql"
"""The ledger of the first release after a kill: one dispatch half done, one over."""


def left_by_schema_2(path: Path, undecided: bytes) -> None:
    connection = apsw.Connection(str(path))
    for script in MIGRATIONS[:2]:
        connection.execute(resources.files("proxy.ledger").joinpath(script).read_text())
    for name, body in (("undecided", undecided), ("beside", b"kept")):
        connection.execute("INSERT INTO document VALUES (?, ?)", (name, body))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def left_by_schema_1(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(FIXTURE.read_text())
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def shape(path: Path) -> list[tuple[object, ...]]:
    connection, _ = open_database(path)
    columns = 'SELECT m.name, c.name, c.type, c."notnull", c.pk FROM sqlite_schema m'
    found = list(connection.execute(f"{columns} JOIN pragma_table_info(m.name) c ORDER BY 1, 2"))
    found += connection.execute("SELECT type, name FROM sqlite_schema ORDER BY 1, 2")
    assert connection.pragma("user_version") == len(MIGRATIONS)
    close_database(connection)
    return found


def test_it_gets_the_shape_of_a_new_one(tmp_path: Path) -> None:
    left_by_schema_1(tmp_path / "old.db")
    assert shape(tmp_path / "old.db") == shape(tmp_path / "new.db")


async def test_it_loses_nothing_and_goes_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "ledger.db"
    left_by_schema_1(path)
    async with Ledger.open(path, Inline()) as ledger:
        (left,) = await ledger.unfinished()
        assert (left.order, left.undeliverable) == (order("n1"), Undeliverable())
        assert left.deliveries[0].counts == Counts(total=2, stored=1)
        assert left.deliveries[0].next_attempt_at == 1000.0
        assert not left.deliveries[0].away
        assert await ledger.cached_entity(SESSION)
        (over,) = (await ledger.accept(order("n1", correlation_id="corr_0"))).over
        assert (over.node_id, over.outcome, over.counts) == ("n1", "completed", Counts(2, 2))
        assert len(await ledger.reports()) == 1
        # Nobody noted which node, at which address, has what: nothing is taken for sent.
        again = (await ledger.accept(order("n1", correlation_id="corr_2"))).dispatch_id
        await ledger.plan(again)
        assert await ledger.settle(again, "n1", "A@host:104", resend=False) == Counts(total=2)


async def test_undecided_events_were_one_document(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """More than nine, so that their order is not that of their keys as text."""
    path = tmp_path / "ledger.db"
    events = [{"event_type": "x", "payload": {"label": f"Ä \u2028 {n}"}} for n in range(25)]
    left_by_schema_2(path, msgspec.json.encode(events))
    async with Ledger.open(path, Inline()) as ledger:
        assert [*map(msgspec.json.decode, await ledger.early_events())] == events
        assert await ledger.document("undecided") is None
        assert await ledger.document("beside") == b"kept"


async def test_a_ledger_without_undecided_events_has_none(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    left_by_schema_2(tmp_path / "ledger.db", b"[]")
    async with Ledger.open(tmp_path / "ledger.db", Inline()) as ledger:
        assert await ledger.early_events() == []
