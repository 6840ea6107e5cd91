"""What proves that ITH has the reports that were sent on one link (protocol.md 1.5).

A pong comes from the WebSocket library of ITH, which goes on answering when the application behind
it has died: what the library took is lost then. A ``health_update_response`` comes from the
application itself. Messages arrive in order, so an answer proves all that was sent before the
``health_update`` that it answers, and answers are counted, since they bear no name of it. A pong is
proof only on a link whose backend answers no ``health_update``.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import trio

from proxy.reporting.outbox import Outbox


class Update(NamedTuple):
    """A ``health_update`` without an answer: its number, and the outbox's mark when it left."""

    number: int
    mark: int


class Receipts:
    """The proofs of one link, of which the link says what left and what came."""

    def __init__(self, outbox: Outbox, *, updates: bool, patience: float) -> None:
        """Begin with a new link.

        ``updates`` says whether ``health_update`` is sent on it. A backend that has answered none
        of them ``patience`` seconds after the first is taken to answer none at all.
        """
        self._outbox = outbox
        self._patience = patience
        self._pongs_prove_from = math.inf if updates else -math.inf
        self._asked = 0
        self._answered = 0
        self._unanswered: deque[Update] = deque()  # of each mark the first
        self._changed = trio.Event()

    def asking(self) -> None:
        """Note that a ``health_update`` leaves now."""
        self._asked += 1
        if self._asked == 1:
            self._pongs_prove_from = trio.current_time() + self._patience
        mark = self._outbox.mark()
        if not self._unanswered or self._unanswered[-1].mark < mark:
            self._unanswered.append(Update(self._asked, mark))

    def answered(self) -> None:
        """Note that a ``health_update_response`` came; one that nobody asked for proves nothing."""
        if self._answered == self._asked:
            return
        self._answered += 1
        self._pongs_prove_from = math.inf
        while self._unanswered and self._unanswered[0].number <= self._answered:
            self._outbox.confirm(self._unanswered.popleft().mark)
        self._changed.set()
        self._changed = trio.Event()

    def pinging(self) -> int:
        """The mark of a ping that leaves now, for ``ponged``."""
        return self._outbox.mark()

    def ponged(self, mark: int) -> None:
        """Note that the ping of this mark was answered."""
        if not self._pongs_prove:
            return
        self._outbox.confirm(mark)
        while self._unanswered and self._unanswered[0].mark <= mark:
            self._unanswered.popleft()

    async def settled(self) -> None:
        """Wait until nothing that was sent can be proven by an answer that is yet to come."""
        while self._answered < self._asked and not self._pongs_prove:
            await self._changed.wait()

    @property
    def _pongs_prove(self) -> bool:
        return trio.current_time() >= self._pongs_prove_from
