"""The ledger forgets finished dispatches after 90 days of running, by no wall clock.

A machine may come up with its clock years ahead or back, and is corrected later. So each day that
the program has run is marked with the newest dispatch of that day; what is older than the mark of
90 such days ago is forgotten. Started by the service.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec
import trio

from proxy.ledger import Ledger
from proxy.logs import log

DOCUMENT = "retention"
HOUR_SECONDS = 3600.0
DAY_HOURS = 24
REMEMBERED_DAYS = 90
"""An order that is repeated within this time is recognised, and what a node confirmed counts."""


class Days(msgspec.Struct):
    """The document: the hours since the last mark, and the marks, dispatch ids, oldest first."""

    hours: int = 0
    marks: list[int] = []


async def forget_regularly(ledger: Ledger) -> None:
    """Count the hours; once a day forget dispatches that have long been over, and rewrite the file.

    A deletion does not rewrite a large one at once.
    """
    days = _read(await ledger.document(DOCUMENT))
    while True:
        await trio.sleep(HOUR_SECONDS)
        days.hours += 1
        if days.hours >= DAY_HOURS:
            days.hours = 0
            days.marks.append(await ledger.last_dispatch_id())
            if len(days.marks) > REMEMBERED_DAYS:
                forgotten = await ledger.forget_dispatches(days.marks.pop(0))
                log("ledger.forgot", level="debug", dispatches=forgotten)
            await ledger.rewrite()
        ledger.post_document(DOCUMENT, msgspec.json.encode(days))


def _read(kept: bytes | None) -> Days:
    """Take up what was kept; where it cannot be read, all is remembered for 90 days more."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(kept or b"{}", type=Days)
    return Days()
