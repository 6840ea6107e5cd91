"""Turns: a bounded number of takers at a time, in the order the scheduler says.

Used for downloads and for the associations of each node. A turn is taken in one activity and
given back in the next, so it is an object that knows whether it was given back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import trio

from proxy.scheduler import Admits, Claim, Scheduler, everybody


class Turn:
    """The right to use one of the slots, until it is given back."""

    def __init__(self, slots: Slots, claim: Claim) -> None:
        self._slots = slots
        self._claim = claim

    def goes_on(self) -> bool:
        """Whether one more service may begin in this turn; if not, it is to be given back soon."""
        return self._slots._scheduler.goes_on(self._claim)  # noqa: SLF001 - they are one thing

    def give_back(self) -> None:
        """Let the next taker have it; further calls do nothing."""
        self._slots._leave(self._claim)  # noqa: SLF001 - a turn and its slots are one thing


class Slots:
    """``limit`` turns; see :mod:`proxy.scheduler` for the order in which takers are served.

    The defaults are for turns that are one service each.
    """

    def __init__(
        self,
        limit: int,
        *,
        quantum: int = 1,
        patience: int = 8,
        spare: int = 0,
        admission: Callable[[Sequence[Claim]], Admits] = everybody,
    ) -> None:
        self._scheduler = Scheduler(
            limit, quantum=quantum, patience=patience, spare=spare, admission=admission
        )
        self._bells: dict[Claim, trio.Event] = {}

    @property
    def limit(self) -> int:
        """How many turns there are."""
        return self._scheduler.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._scheduler.limit = limit
        self.look()

    @property
    def taken(self) -> int:
        """How many turns are in use."""
        return len(self._scheduler.served)

    @property
    def waiting(self) -> int:
        """How many takers wait."""
        return len(self._scheduler.waiting)

    async def take(self, rank: int, order: int = 0, party: Hashable = None) -> Turn:
        """Wait for a turn. A taker that is cancelled leaves the line, and its turn to others.

        Those that come in the same instant, as all do when a pause ends, are served by rank too.
        """
        claim = self._scheduler.claim(rank, order, party)
        bell = self._bells[claim] = trio.Event()
        try:
            await trio.lowlevel.checkpoint()
            self.look()
            await bell.wait()
        except trio.Cancelled:
            self._leave(claim)
            raise
        finally:
            del self._bells[claim]
        return Turn(self, claim)

    def hurry(self, party: Hashable, rank: int) -> None:
        """Serve a party as those of ``rank`` are from now on, if it was less urgent."""
        self._scheduler.hurry(party, rank)
        self.look()

    def _leave(self, claim: Claim) -> None:
        self._scheduler.leave(claim)
        self.look()

    def look(self) -> None:
        """Serve whoever can be served now; to be called when more may be admitted than before."""
        for claim in self._scheduler.serve():
            self._bells[claim].set()


class TakesTurns:
    """What may use a slot for as long as it has a turn: of a node, or of the downloads."""

    turn: Turn | None = None

    def give_back_turn(self) -> None:
        """Let another one have the slot; without a turn this does nothing."""
        if self.turn is not None:
            self.turn.give_back()
            self.turn = None
