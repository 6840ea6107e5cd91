"""Orders before the first configuration: kept one by one, in order, until they can be decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias, get_args

from trio.testing import MockClock

from proxy.demo import frames
from proxy.events import decode
from proxy.events.incoming import (
    NewScanAvailableEvent,
    ScanDispatchEvent,
    SessionDeletedEvent,
    SessionDispatchEvent,
)
from proxy.ledger import Ledger
from proxy.runtime.offload import Inline
from proxy.supervision.early_events import EarlyEvents

Kinds: TypeAlias = (
    SessionDispatchEvent | ScanDispatchEvent | SessionDeletedEvent | NewScanAvailableEvent
)


def event(number: int) -> Kinds:
    match number % 4:
        case 0:
            frame = frames.scan_dispatch(f"scan-{number}", ["ä", "b"])
        case 1:
            frame = frames.session_deleted(f"sess-{number}", study_instance_uid="1.2.3")
        case 2:
            frame = frames.new_scan_available(f"scan-{number}")
        case _:
            frame = frames.session_dispatch(f"sess-{number}", ["elsewhere"], priority="urgent")
    made = decode(json.dumps(frame))
    assert isinstance(made, Kinds)
    return made


async def loaded(ledger: Ledger) -> EarlyEvents[Kinds]:
    undecided = EarlyEvents[Kinds](ledger, get_args(Kinds))
    await undecided.load()
    return undecided


async def test_thousands_of_events_outlive_restarts_whole_and_in_order(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "ledger.db"
    events = [event(number) for number in range(2000)]
    for some in (events[:1200], events[1200:]):
        async with Ledger.open(path, Inline()) as ledger:
            undecided = await loaded(ledger)
            for each in some:
                undecided.keep(each)
    async with Ledger.open(path, Inline()) as ledger:
        undecided = await loaded(ledger)
        assert undecided.take() == events
        assert undecided.take() == []
        undecided.keep(events[7])
    async with Ledger.open(path, Inline()) as ledger:
        assert (await loaded(ledger)).take() == [events[7]]
    async with Ledger.open(path, Inline()) as ledger:
        assert (await loaded(ledger)).take() == []
