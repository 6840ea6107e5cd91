from __future__ import annotations

import threading
from pathlib import Path

import apsw
import pytest
import trio
from trio.testing import MockClock

from proxy.errors import LedgerError
from proxy.ledger import Ledger
from proxy.ledger.database import LINGER_S
from proxy.runtime.offload import Inline, Threads
from tests.ledger.make import SlowOffload, order


def names(connection: apsw.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM document")}


async def test_what_is_posted_together_is_one_transaction(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    offload = SlowOffload()
    async with Ledger.open(tmp_path / "l.db", offload) as ledger:
        before = offload.calls
        for n in range(500):
            ledger.post_document(f"d{n}", b"x")
        await ledger.settled()
        assert offload.calls == before + 1
        await ledger.settled()
        assert offload.calls == before + 1, "nothing to wait for"


async def test_lonely_posts_wait_a_moment_for_company(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    offload = SlowOffload()
    async with Ledger.open(tmp_path / "l.db", offload) as ledger:
        before, began = offload.calls, trio.current_time()
        for n in range(20):
            ledger.post_document(f"d{n}", b"x")
            await trio.sleep(LINGER_S / 20)
        assert offload.calls - before <= 2
        ledger.post_document("last", b"x")
        began = trio.current_time()
        assert await ledger.document("last") == b"x"
        assert trio.current_time() == began, "a reader is not kept waiting"


async def test_settled_waits_for_a_commit_under_way(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    offload = SlowOffload()
    async with Ledger.open(tmp_path / "l.db", offload) as ledger:
        offload.seconds = 5.0
        ledger.post_document("slow", b"x")
        await trio.sleep(1.0)
        began = trio.current_time()
        await ledger.settled()
        assert trio.current_time() - began > 3.0


async def test_a_cancelled_caller_leaves_its_operation_behind(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    offload = SlowOffload()
    async with Ledger.open(tmp_path / "l.db", offload) as ledger:
        offload.seconds = 5.0
        with trio.move_on_after(1.0) as scope:
            await ledger.accept(order())
        assert scope.cancelled_caught
        assert len(await ledger.unfinished()) == 1


async def test_what_the_clean_up_of_a_cancelled_program_posts_is_kept(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(1.0):
        async with Ledger.open(tmp_path / "l.db", Inline()) as ledger:
            ledger.post_document("before", b"x")
            try:
                await trio.sleep_forever()
            finally:
                ledger.post_document("during", b"x")
    async with Ledger.open(tmp_path / "l.db", Inline()) as ledger:
        assert await ledger.document("before") == b"x"
        assert await ledger.document("during") == b"x"
        assert not ledger.was_unclean


async def test_an_operation_at_fault_is_undone_alone_and_its_caller_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    def stumble(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO document VALUES ('half', x'00')")
        connection.execute("INSERT INTO delivery (dispatch_id, node_id) VALUES (77, 'n')")

    async with Ledger.open(tmp_path / "l.db", Inline()) as ledger:
        ledger.post_document("before", b"x")
        with pytest.raises(apsw.ConstraintError):
            await ledger._writer.call(stumble)
        assert await ledger._writer.call(names) == {"before"}


async def test_a_post_at_fault_stops_the_program_and_undoes_its_whole_stretch(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    def stumble(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO document VALUES (NULL, NULL)")

    path = tmp_path / "l.db"
    with pytest.RaisesGroup(LedgerError, LedgerError, flatten_subgroups=True):
        async with Ledger.open(path, Inline()) as ledger:
            ledger.post_document("earlier", b"x")
            await ledger.settled()
            ledger.post_document("same stretch", b"x")
            ledger._writer.post(stumble)
            await ledger.settled()
    async with Ledger.open(path, Inline()) as ledger:
        assert await ledger._writer.call(names) == {"earlier"}


async def test_a_full_disk_stops_the_program_and_tells_everyone_who_waits(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    told = []

    async def wait_for(ledger: Ledger) -> None:
        with pytest.raises(LedgerError) as caught:
            await ledger.accept(order())
        told.append(caught.value)

    path = tmp_path / "l.db"
    with pytest.RaisesGroup(LedgerError, flatten_subgroups=True) as group:
        async with Ledger.open(path, Inline()) as ledger:
            ledger.post_document("small", b"x")
            await ledger.settled()
            ledger._writer.post(lambda c: c.execute("PRAGMA max_page_count = 1"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for, ledger)
                nursery.start_soon(wait_for, ledger)
                ledger.post_document("large", bytes(1 << 20))
                await trio.sleep_forever()
    (error,) = group.value.exceptions
    assert isinstance(error, LedgerError)
    assert "disk is full" in str(error)
    assert "Free space" in error.hint
    assert len(told) == len(set(map(id, told))) == 2, "each with an exception of its own"
    assert {str(e) for e in told} == {str(error)}
    async with Ledger.open(path, Inline()) as ledger:
        assert await ledger.document("small") == b"x"
        assert await ledger.document("large") is None


async def test_after_a_failure_nothing_is_performed_and_nobody_waits_for_ever(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with pytest.RaisesGroup(LedgerError, flatten_subgroups=True):
        async with Ledger.open(tmp_path / "l.db", Inline()) as ledger:
            ledger._writer.post(lambda c: c.execute("PRAGMA max_page_count = 1"))
            ledger.post_document("large", bytes(1 << 20))
            try:
                await trio.sleep_forever()
            finally:
                ledger.post_document("late", b"x")
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    with pytest.raises(LedgerError):
                        await ledger.settled()
                    with pytest.raises(LedgerError):
                        await ledger.document("late")


async def test_a_closed_ledger_takes_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with Ledger.open(tmp_path / "l.db", Inline()) as ledger:
        pass
    with pytest.raises(trio.ClosedResourceError):
        ledger.post_document("late", b"x")


async def test_a_last_commit_that_hangs_is_given_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    offload = SlowOffload()
    with pytest.RaisesGroup(LedgerError, flatten_subgroups=True):
        async with Ledger.open(tmp_path / "l.db", offload) as ledger:
            ledger.post_document("never", b"x")
            offload.seconds = 3600.0


async def test_with_threads_the_trio_thread_never_touches_the_file(tmp_path: Path) -> None:
    seen: set[int] = set()

    def note(connection: apsw.Connection) -> None:
        seen.add(threading.get_ident())

    async with Ledger.open(tmp_path / "l.db", Threads(1)) as ledger:
        ledger._writer.post(note)
        await ledger._writer.call(note)
    assert threading.get_ident() not in seen
    assert seen
