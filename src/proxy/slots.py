"""Turns: a bounded number of takers at a time, the most urgent first.

Used for downloads and for the associations of each node. A turn is taken in one activity and
given back in the next, so it is an object that knows whether it was given back.
"""

from __future__ import annotations

import heapq
from itertools import count

import trio


class Turn:
    """The right to use one of the slots, until it is given back."""

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def give_back(self) -> None:
        """Let the next taker have it; further calls do nothing."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots._release()  # noqa: SLF001 - a turn and its slots are one thing


class Slots:
    """``limit`` turns; who waits is served by rank (0 first), then by order, then of arrival."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._arrivals = count()
        self._queue: list[tuple[int, int, int, _Waiter]] = []

    @property
    def waiting(self) -> int:
        """How many takers wait."""
        return len(self._queue)

    async def take(self, rank: int, order: int = 0) -> Turn:
        """Wait for a turn. A taker that is cancelled leaves the queue, and its turn to others.

        ``order`` puts takers of the same rank in a row whose arrival is a matter of chance: those
        that come in the same instant, as all do when a pause ends, are served by rank as well.
        """
        waiter = _Waiter()
        entry = (rank, order, next(self._arrivals), waiter)
        heapq.heappush(self._queue, entry)
        try:
            await trio.lowlevel.checkpoint()
            self._serve()
            await waiter.served.wait()
        except trio.Cancelled:
            if waiter.served.is_set():
                self._release()
            else:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
            raise
        return Turn(self)

    def _release(self) -> None:
        self.taken -= 1
        self._serve()

    def _serve(self) -> None:
        while self._queue and self.taken < self.limit:
            _, _, _, waiter = heapq.heappop(self._queue)
            self.taken += 1
            waiter.served.set()


class _Waiter:
    """One who waits; compared by nothing but its place in the queue."""

    def __init__(self) -> None:
        self.served = trio.Event()
