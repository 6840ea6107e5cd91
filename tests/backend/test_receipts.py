"""Which answers prove that reports have arrived: a real outbox, and the link's side by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from proxy.backend.receipts import Receipts
from proxy.ledger import Ledger
from proxy.reporting.outbox import Outbox
from proxy.runtime.offload import Inline
from tests.reporting.make import over

PATIENCE_S = 20.0
ALWAYS_S = 400 * 24 * 3600.0


@pytest.fixture
async def outbox(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[Outbox]:
    async with Ledger.open(tmp_path / "ledger.db", Inline()) as ledger:
        outbox = Outbox(ledger)
        await outbox.load()
        yield outbox


@pytest.fixture
def receipts(outbox: Outbox) -> Receipts:
    return Receipts(outbox, updates=True, patience=PATIENCE_S)


async def send(outbox: Outbox, key: str) -> None:
    """Put a final report and send it."""
    outbox.put(key, over(key))
    outbox.sent(await outbox.take())


async def test_an_answer_proves_what_was_sent_before_its_update(
    outbox: Outbox, receipts: Receipts, autojump_clock: MockClock
) -> None:
    receipts.asking()
    await send(outbox, "a")
    receipts.asking()
    await send(outbox, "b")
    receipts.answered()
    assert outbox.queued == 2
    receipts.answered()
    assert (outbox.keeps("a"), outbox.keeps("b")) == (False, True)
    receipts.answered()  # nobody asked for it
    assert outbox.keeps("b")
    receipts.asking()
    receipts.answered()
    assert outbox.queued == 0


async def test_updates_between_which_nothing_is_sent_are_counted(
    outbox: Outbox, receipts: Receipts, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        receipts.asking()
    await send(outbox, "a")
    for _ in range(3):
        receipts.asking()
    for _ in range(3):
        receipts.answered()
    assert outbox.queued == 1
    receipts.answered()
    assert outbox.queued == 0


async def test_a_pong_proves_nothing_while_an_answer_may_come(
    outbox: Outbox, receipts: Receipts, autojump_clock: MockClock
) -> None:
    await send(outbox, "a")
    mark = receipts.pinging()
    receipts.ponged(mark)  # no update has left yet
    receipts.asking()
    await trio.sleep(PATIENCE_S - 1)
    receipts.ponged(mark)
    assert outbox.queued == 1
    await trio.sleep(1)
    receipts.ponged(mark)
    assert outbox.queued == 0


async def test_a_pong_proves_nothing_once_an_update_was_answered(
    outbox: Outbox, receipts: Receipts, autojump_clock: MockClock
) -> None:
    receipts.asking()
    receipts.answered()
    await send(outbox, "a")
    for _ in range(3):
        receipts.asking()
    await trio.sleep(ALWAYS_S)
    receipts.ponged(receipts.pinging())
    assert outbox.queued == 1


async def test_where_no_update_is_sent_a_pong_proves(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    receipts = Receipts(outbox, updates=False, patience=PATIENCE_S)
    await send(outbox, "a")
    mark = receipts.pinging()
    await send(outbox, "b")
    receipts.ponged(mark)
    assert (outbox.keeps("a"), outbox.keeps("b")) == (False, True)
    receipts.answered()  # nobody asked for it
    receipts.ponged(receipts.pinging())
    assert outbox.queued == 0


async def test_answers_that_begin_late_are_answers_to_the_first_updates(
    outbox: Outbox, receipts: Receipts, autojump_clock: MockClock
) -> None:
    receipts.asking()
    await send(outbox, "a")
    receipts.asking()
    await trio.sleep(PATIENCE_S)
    receipts.ponged(receipts.pinging())
    assert outbox.queued == 0
    await send(outbox, "b")
    receipts.asking()
    receipts.answered()
    receipts.answered()
    receipts.ponged(receipts.pinging())
    assert outbox.queued == 1
    receipts.answered()
    assert outbox.queued == 0


async def test_what_is_noted_of_a_silent_backend_does_not_grow(
    outbox: Outbox, receipts: Receipts, autojump_clock: MockClock
) -> None:
    for _ in range(1000):
        receipts.asking()
    assert len(receipts._unanswered) == 1
    for key in "abc":
        await send(outbox, key)
        receipts.asking()
    await trio.sleep(PATIENCE_S)
    receipts.ponged(receipts.pinging())
    assert (len(receipts._unanswered), outbox.queued) == (0, 0)


async def test_what_no_answer_can_prove_is_settled(
    outbox: Outbox, receipts: Receipts, autojump_clock: MockClock
) -> None:
    with trio.fail_after(0):
        await receipts.settled()
    receipts.asking()
    receipts.asking()
    with trio.move_on_after(1) as waiting:
        await receipts.settled()
    assert waiting.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receipts.settled)
        receipts.answered()
        await trio.sleep(1)
        assert nursery.child_tasks
        receipts.answered()
    silent = Receipts(outbox, updates=True, patience=PATIENCE_S)
    silent.asking()
    await trio.sleep(PATIENCE_S)
    with trio.fail_after(0):
        await silent.settled()
