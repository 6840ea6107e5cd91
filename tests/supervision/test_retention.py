"""Work that is over is remembered for 90 days of running, at any wall clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from proxy.ledger import InstanceState, Ledger
from proxy.runtime.clock import Clock
from proxy.runtime.offload import Inline
from proxy.supervision.retention import DOCUMENT, forget_regularly
from tests.ledger.make import SESSION, instance, order
from tests.support.clocks import NOON, VirtualClock

DAY = 24 * 3600.0


async def run(path: Path, days: float, clock: Clock, *, new: str | None = None) -> None:
    """Let the program run for so many days, and take an order that is done at once, if any."""
    async with Ledger.open(path, Inline(), clock=clock) as ledger:
        if new is not None:
            dispatch = await ledger.accept(order(correlation_id=new))
            await ledger.keep(SESSION, [instance(1)], None)
            await ledger.plan(dispatch.dispatch_id)
            stored = (dispatch.dispatch_id, "n1", instance(1), InstanceState.STORED, 0)
            ledger.post_result(*stored, confirmed_by="node")
            ledger.post_dispatch_over(dispatch.dispatch_id, "completed", None)
        with trio.move_on_after(days * DAY):
            await forget_regularly(ledger)


async def remembers(path: Path) -> tuple[bool, int]:
    """Whether the first order is recognised, and how much of it n1 is known to have."""
    async with Ledger.open(path, Inline()) as ledger:
        known = not (await ledger.accept(order(correlation_id="first"))).is_new
        later = await ledger.accept(order(correlation_id="later"))
        await ledger.plan(later.dispatch_id)
        counts = await ledger.settle(later.dispatch_id, "n1", "node", resend=False)
        return known, counts.stored


@pytest.mark.parametrize(("days", "known"), [(0.5, True), (89, True), (90.9, True), (91.1, False)])
async def test_so_long_and_no_longer(
    tmp_path: Path, autojump_clock: MockClock, days: float, known: bool
) -> None:
    await run(tmp_path / "l.db", days, VirtualClock(), new="first")
    assert await remembers(tmp_path / "l.db") == (known, int(known))


@pytest.mark.parametrize("jump", [400 * DAY, -400 * DAY, 40 * 365 * DAY, -50 * 365 * DAY])
async def test_a_clock_that_was_wrong_for_a_while_makes_nothing_forgotten(
    tmp_path: Path, autojump_clock: MockClock, jump: float
) -> None:
    path = tmp_path / "l.db"
    await run(path, 3, VirtualClock(), new="first")
    await run(path, 2, VirtualClock(NOON + jump), new="second")
    await run(path, 3, VirtualClock())
    assert await remembers(path) == (True, 1)


@pytest.mark.parametrize("jump", [400 * DAY, -400 * DAY])
async def test_what_was_noted_by_a_wrong_clock_is_forgotten_in_time(
    tmp_path: Path, autojump_clock: MockClock, jump: float
) -> None:
    path = tmp_path / "l.db"
    await run(path, 1.5, VirtualClock(NOON + jump), new="first")
    await run(path, 91, VirtualClock())
    assert await remembers(path) == (False, 0)


async def test_days_are_counted_over_restarts(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An appliance that is switched off each night never runs for a day."""
    path = tmp_path / "l.db"
    await run(path, 0.4, VirtualClock(), new="first")
    for _ in range(219):
        await run(path, 10.5 / 24, VirtualClock())  # ten whole hours
    assert await remembers(path) == (False, 0)


async def test_what_cannot_be_read_forgets_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "l.db"
    await run(path, 80, VirtualClock(), new="first")
    async with Ledger.open(path, Inline()) as ledger:
        ledger.post_document(DOCUMENT, b'{"hours": "many"')
    await run(path, 80, VirtualClock())
    assert (await remembers(path))[0]


async def test_an_order_that_is_at_work_is_never_forgotten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "l.db"
    async with Ledger.open(path, Inline()) as ledger:
        await ledger.accept(order(correlation_id="first"))
    await run(path, 200, VirtualClock())
    assert (await remembers(path))[0]
