"""Finds changes of ITH that are older than an applied one: they came again, or out of order.

Used by the supervisor. An event's time is ITH's own, so two of them can be compared; one without
a readable time counts as new. What is outdated is not applied, and ITH's configuration is fetched:
if the times were wrong, that sets it right.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from proxy.events.base import ProxyEvent
from proxy.ledger import Ledger
from proxy.runtime.clock import Clock

DOCUMENT = "recency"
CREDIBLE_SECONDS = 24 * 3600
"""A time so far ahead is a mistake, which must not make all that follows outdated."""


class StaleEventFilter:
    """Remembers the time of the newest change of each type, over restarts too."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._newest: dict[str, float] = {}

    async def load(self) -> None:
        """Take up what was kept; without it everything is new."""
        kept = await self._ledger.document(DOCUMENT)
        if kept:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                self._newest = msgspec.json.decode(kept, type=dict[str, float])

    def is_outdated(self, event: ProxyEvent) -> bool:
        """Whether a newer change of this type was applied; if not, this one is the newest now."""
        at = _seconds(event.timestamp)
        if at is None or at > self._clock.now() + CREDIBLE_SECONDS:
            return False
        newest = self._newest.get(event.event_type, at)
        if at < newest:
            return True
        self._newest[event.event_type] = at
        self._ledger.post_document(DOCUMENT, msgspec.json.encode(self._newest))
        return False


def _seconds(timestamp: str) -> float | None:
    """Read ISO 8601 as UTC seconds since 1970; a time without a zone is taken for UTC."""
    try:
        at = datetime.fromisoformat(timestamp)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
