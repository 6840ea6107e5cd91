"""Keeps events that came before the first configuration: which nodes are ours is not known then.

The events are in the ledger in the order they came, so that a restart, or a crash, before ITH
answers for the first time loses no order. Owned by the supervisor.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from proxy.events import WebSocketEvent, decode
from proxy.ledger import Ledger

E = TypeVar("E", bound=WebSocketEvent)


class EarlyEvents(Generic[E]):
    """Events of the given types, kept until they can be acted upon."""

    def __init__(self, ledger: Ledger, kinds: tuple[type[E], ...]) -> None:
        self._ledger = ledger
        self._kinds = kinds
        self._events: list[E] = []

    async def load(self) -> None:
        """Take up what was kept."""
        events = map(decode, await self._ledger.early_events())
        self._events = [event for event in events if isinstance(event, self._kinds)]

    def keep(self, event: E) -> None:
        """Keep one more."""
        self._events.append(event)
        self._ledger.post_early_event(msgspec.json.encode(event).decode())

    def take(self) -> list[E]:
        """Give out all of it; what it leads to is kept in its stead, in the same commit."""
        events, self._events = self._events, []
        if events:
            self._ledger.post_early_events_taken()
        return events
