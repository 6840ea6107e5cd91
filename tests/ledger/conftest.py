from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from proxy.ledger import Ledger
from proxy.runtime.offload import Inline


@pytest.fixture
async def ledger(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[Ledger]:
    async with Ledger.open(tmp_path / "state" / "ledger.db", Inline()) as opened:
        yield opened
