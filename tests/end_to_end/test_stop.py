"""A stop is fast in every phase of a node, for every reason, and leaves nothing behind."""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

import pytest

from tests.end_to_end.stops.batch import Bench
from tests.end_to_end.stops.node import Phase
from tests.end_to_end.stops.reasons import Reason

CANCEL_S = 0.8
LATE_S = 15.0
"""All trials of a test stop at once, in one process, on a machine that may be busy. Every clock
that could end one instead runs for a minute; ``scripts/check-cancel`` judges by the second."""
LARGE = 24_000_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("phases", [[*Phase][:4], [*Phase][4:]], ids=["first", "last"])
async def test_a_stop_is_fast_wherever_the_node_is(
    directory: Path, monkeypatch: pytest.MonkeyPatch, phases: list[Phase]
) -> None:
    bench = Bench(directory, cancel_seconds=CANCEL_S, late_seconds=LATE_S, large=LARGE)
    monkeypatch.setattr(tempfile, "tempdir", str(bench.temporary))
    batch = await bench.hold([*product(phases, Reason)])
    assert batch.problems == []
