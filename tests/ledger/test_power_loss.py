from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import NamedTuple, TypeAlias

import apsw
import pytest
import trio
from trio.testing import MockClock

from proxy.errors import LedgerError
from proxy.ledger import Ledger, database
from proxy.runtime.offload import Inline
from proxy.simulation.vfs import FileOperation, Medium, watched
from tests.ledger.make import fast_directory
from tests.ledger.workload import check, work

STEPS = 90
CUTS = int(os.environ.get("ITH_PROXY_POWER_CUTS", "250"))


class Claimed(NamedTuple):
    """The ledger has said that this step, and all before it, are durable."""

    step: int


Recorded: TypeAlias = FileOperation | Claimed


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold the log into the file often, so that cuts hit that as well."""
    monkeypatch.setattr(database, "PRAGMAS", (*database.PRAGMAS, "wal_autocheckpoint = 30"))


async def record(directory: Path) -> list[Recorded]:
    happened: list[Recorded] = []
    with watched(happened.append):
        async with Ledger.open(directory / "ledger.db", Inline()) as ledger:
            happened.append(Claimed(-1))
            async for step in work(ledger, STEPS):
                happened.append(Claimed(step))  # noqa: PERF401 - its place is between others
        happened.append(Claimed(STEPS - 1))
    return happened


async def survivors(recorded: list[Recorded], directory: Path, seed: int) -> dict[str, int]:
    """Cut the power at random moments; count what the next start finds."""
    rng = random.Random(seed)
    first = recorded.index(Claimed(-1))
    cuts = sorted(rng.randrange(first, len(recorded)) + 1 for _ in range(CUTS))
    found = {"intact": 0, "lost": 0, "damaged": 0}
    medium, claimed, done = Medium(), -1, 0
    for number, cut in enumerate(cuts):
        for each in recorded[done:cut]:
            if isinstance(each, Claimed):
                claimed = each.step
            else:
                medium.note(each)
        done = cut
        into = directory / str(number)
        into.mkdir(parents=True)
        for name, content in medium.after_power_loss(rng).items():
            (into / name).write_bytes(content)
        try:
            async with Ledger.open(into / "ledger.db", Inline()) as ledger:
                await check(ledger, claimed)
        except* AssertionError as group:
            if "lost what was said" not in str(group.exceptions):
                raise
            found["lost"] += 1
        except* LedgerError:
            found["damaged"] += 1
        else:
            found["intact"] += 1
        shutil.rmtree(into)
    return found


async def test_a_power_cut_at_any_moment_loses_nothing(
    directory: Path, autojump_clock: MockClock
) -> None:
    recorded = await record(directory)
    found = await survivors(recorded, directory / "cut", seed=1)
    assert found == {"intact": CUTS, "lost": 0, "damaged": 0}


async def test_the_cuts_would_find_a_ledger_that_does_not_sync(
    directory: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = tuple(p.replace("synchronous = FULL", "synchronous = NORMAL") for p in database.PRAGMAS)
    assert lazy != database.PRAGMAS
    monkeypatch.setattr(database, "PRAGMAS", lazy)
    recorded = await record(directory)
    found = await survivors(recorded, directory / "cut", seed=1)
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
            with watched(lambda _: None) as vfs:
                vfs.before_write = spend
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
    recorded = await record(directory)
    files = {getattr(each, "file", "") for each in recorded}
    assert {"ledger.db", "ledger.db-wal"} <= files
    checkpoints = [each for each in recorded if getattr(each, "file", "") == "ledger.db"]
    assert len(checkpoints) > 50
    await trio.lowlevel.checkpoint()
