from __future__ import annotations

import os
import random
from pathlib import Path

import apsw
import pytest
import trio
from trio.testing import MockClock

from proxy.errors import LedgerError
from proxy.ledger import Ledger, database
from proxy.runtime.offload import Inline
from tests.ledger.disk import Claim, Op, claimed, cut_power, recording_disk
from tests.ledger.make import fast_directory
from tests.ledger.workload import check, work

STEPS = 90
CUTS = int(os.environ.get("ITH_PROXY_POWER_CUTS", "250"))


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold the log into the file often, so that cuts hit that as well."""
    monkeypatch.setattr(database, "PRAGMAS", (*database.PRAGMAS, "wal_autocheckpoint = 30"))


async def record(directory: Path) -> list[Op]:
    with recording_disk() as disk:
        async with Ledger.open(directory / "ledger.db", Inline()) as ledger:
            disk.claim(-1)
            async for step in work(ledger, STEPS):
                disk.claim(step)
        disk.claim(STEPS - 1)
    return disk.ops


async def survivors(ops: list[Op], directory: Path, seed: int) -> dict[str, int]:
    """Cut the power at random moments; count what the next start finds."""
    chance = random.Random(seed)
    first = ops.index(Claim(-1))
    found = {"intact": 0, "lost": 0, "damaged": 0}
    for _ in range(CUTS):
        happened = ops[: chance.randrange(first, len(ops)) + 1]
        cut_power(happened, directory, chance)
        try:
            async with Ledger.open(directory / "ledger.db", Inline()) as ledger:
                await check(ledger, claimed(happened))
        except* AssertionError as group:
            if "lost what was said" not in str(group.exceptions):
                raise
            found["lost"] += 1
        except* LedgerError:
            found["damaged"] += 1
        else:
            found["intact"] += 1
    return found


async def test_a_power_cut_at_any_moment_loses_nothing(
    directory: Path, autojump_clock: MockClock
) -> None:
    ops = await record(directory)
    found = await survivors(ops, directory / "cut", seed=1)
    assert found == {"intact": CUTS, "lost": 0, "damaged": 0}


async def test_the_cuts_would_find_a_ledger_that_does_not_sync(
    directory: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = tuple(p.replace("synchronous = FULL", "synchronous = NORMAL") for p in database.PRAGMAS)
    assert lazy != database.PRAGMAS
    monkeypatch.setattr(database, "PRAGMAS", lazy)
    ops = await record(directory)
    found = await survivors(ops, directory / "cut", seed=1)
    assert found["lost"] > CUTS / 2
    assert found["damaged"] == 0


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
async def test_a_write_that_fails_at_any_moment_loses_nothing(
    autojump_clock: MockClock, error: type[apsw.Error]
) -> None:
    """The n-th write fails, and every later one: for all n until the work gets through."""
    failed = 0
    for allowed in range(0, 10_000, 7):
        left = allowed

        def spend(error: type[apsw.Error] = error) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise error("the disk")

        done = -1
        with fast_directory() as directory:
            path = directory / "ledger.db"
            with recording_disk() as disk:
                disk.before_write = spend
                try:
                    async with Ledger.open(path, Inline()) as ledger:
                        async for step in work(ledger, 45):
                            done = step
                except* LedgerError as group:
                    failed += 1
                    sentences = {str(e) for e in _leaves(group)}
                    assert len(sentences) == 1
                    assert "disk" in sentences.pop()
            async with Ledger.open(path, Inline()) as ledger:
                await check(ledger, done)
        if left >= 0:
            break
    assert failed > 20
    assert done == 44


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def test_the_recorded_work_is_worth_cutting(
    directory: Path, autojump_clock: MockClock
) -> None:
    ops = await record(directory)
    files = {getattr(op, "file", "") for op in ops}
    assert {"ledger.db", "ledger.db-wal"} <= files
    checkpoints = [op for op in ops if getattr(op, "file", "") == "ledger.db"]
    assert len(checkpoints) > 50
    await trio.lowlevel.checkpoint()
