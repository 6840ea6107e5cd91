from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import trio

from proxy.ledger import Ledger
from proxy.runtime.offload import Inline
from tests.ledger.workload import check

ROOT = Path(__file__).parents[2]


def work_and_die(path: Path, first: int, lines: int, delay: float) -> int:
    """Let a child work, kill it a moment after some steps; return the last step it claimed."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.crash_child", str(path), str(first)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout as output:
        claimed = [output.readline() for _ in range(lines)]
        time.sleep(delay)
        child.kill()
        claimed += output.readlines()
    child.wait()
    whole = [line for line in claimed if line.endswith(b"\n")]
    return int(whole[-1]) if whole else -1


async def test_kill_9_at_any_moment_loses_nothing_that_was_said_to_be_durable(
    tmp_path: Path,
) -> None:
    chance = random.Random()
    path = tmp_path / "ledger.db"
    last = -1
    for _ in range(4):
        lines, delay = chance.randrange(1, 120), chance.uniform(0, 0.02)
        claimed = await trio.to_thread.run_sync(work_and_die, path, last + 1, lines, delay)
        assert claimed > last, "the child did some work"
        async with Ledger.open(path, Inline()) as ledger:
            assert ledger.was_unclean
            last = await check(ledger, claimed)
