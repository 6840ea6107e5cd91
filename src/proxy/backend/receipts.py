"""The proofs that ITH has the reports sent on one link (protocol.md 1.5).

A pong comes from the WebSocket library of ITH. The library goes on answering when the application
behind it has died, and the messages that it took are lost then. A ``health_update_response`` comes
from the application itself. Messages arrive in order, so an answer proves every message sent before
its ``health_update``. Answers do not name their update, so they are counted. A pong is a proof only
on a link without such answers.
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
    """The proofs of one link; the link calls a method for each update, answer, ping and pong."""

    def __init__(self, outbox: Outbox, *, updates: bool, patience: float) -> None:
        """Begin with a new link; without ``updates`` no ``health_update`` is sent on it.

        Pongs are proofs if no update is answered within ``patience`` seconds of the first one.
        """
        self._outbox = outbox
        self._patience = patience
        self._pongs_prove_from = math.inf if updates else -math.inf
        self._asked = 0
        self._answered = 0
        self._unanswered: deque[Update] = deque()  # only the first one of each mark
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
        """Note that a ``health_update_response`` came; one without an update proves nothing."""
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
        """Wait until no further answer can prove anything that was sent."""
        while self._answered < self._asked and not self._pongs_prove:
            await self._changed.wait()

    @property
    def _pongs_prove(self) -> bool:
        return trio.current_time() >= self._pongs_prove_from
