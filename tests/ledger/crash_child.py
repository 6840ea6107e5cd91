"""Works on a ledger until it is killed, saying after each step that it is durable."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from proxy.ledger import Ledger
from proxy.runtime.offload import Threads
from tests.ledger.workload import work


async def main(path: Path, first: int) -> None:
    async with Ledger.open(path, Threads(2)) as ledger:
        async for step in work(ledger, 1_000_000, first):
            sys.stdout.write(f"{step}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
