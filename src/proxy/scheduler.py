"""Who is served next, and who makes room between two services. It decides; it does not wait.

A service is one instance sent, or one download. A claim waits, is served until it leaves, and may
be told between two services to make room. ``proxy.slots`` asks for each node's associations and for
the downloads, each a pool of its own, so that no node is ever in another one's line. Order of
service in a pool:

* The most urgent first. It waits for no more than the service under way.
* Those of one priority in rounds, one turn for each party in a round. A turn lasts ``quantum``
  services if an equal one waits. At a node a dispatch is a party. For downloads the dispatches to
  the same set of nodes are one: many orders for one node keep those for another waiting a round.
* After ``patience`` services in a row that were not for whoever has waited longest, the next one
  is, whatever its priority, so that nobody waits for ever. An urgent claim lets at most one less
  urgent service pass, the one under way when it came included, if who makes room leaves at once.
* ``spare`` slots beyond the limit are for urgent claims alone: for services too long to wait for.
* Who is not admitted at the moment is passed over, and is no reason for anybody to leave.
* Where the limit falls below what is in use, the least urgent leave between two services.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import TypeAlias, cast

URGENT = 0
"""The rank that aging does not overtake twice."""


@dataclass(eq=False, slots=True)
class Claim:
    """One who wants to be served; ``used`` counts the services of the present turn.

    ``round`` is the one it is to be served in: the one after that in which it came, or in which its
    party was served last. ``overtaken`` says of an urgent claim that a less urgent service passed.
    """

    rank: int
    order: int
    arrival: int
    party: Hashable
    round: int
    used: int = 0
    overtaken: bool = False
    makes_room: bool = False


Admits: TypeAlias = Callable[[Claim], bool]


def everybody(_: Sequence[Claim]) -> Admits:
    """Admit whoever comes, whoever is served."""
    return lambda _: True


def room_at_a_node(
    most: int, ahead: Callable[[str], Counter[int]]
) -> Callable[[Sequence[Claim]], Admits]:
    """Let a dispatch be downloaded if one of its nodes has not too many as urgent ahead.

    ``ahead`` says what a node has, by rank. No priority waits for another here: who is first is a
    matter of turns. A node that is down, or slow, holds up only the dispatches that are for no
    other node.
    """

    def admission(downloading: Sequence[Claim]) -> Admits:
        coming = Counter((node_id, each.rank) for each in downloading for node_id in _nodes(each))

        def has_room(node_id: str, rank: int) -> bool:
            return ahead(node_id)[rank] + coming[node_id, rank] < most

        @cache  # in a flood of orders very many wait, of few parties
        def admits(node_ids: frozenset[str], rank: int) -> bool:
            return any(has_room(node_id, rank) for node_id in node_ids)

        return lambda claim: admits(_nodes(claim), claim.rank)

    return admission


def _nodes(claim: Claim) -> frozenset[str]:
    """The party that a download is for."""
    return cast("frozenset[str]", claim.party)


class Scheduler:
    """The claims on one pool of ``limit`` slots; a slot serves one claim at a time.

    ``admission`` is told who is served, before a slot is given, and says of each claim whether it
    may have one.
    """

    def __init__(
        self,
        limit: int,
        *,
        quantum: int,
        patience: int,
        spare: int = 0,
        admission: Callable[[Sequence[Claim]], Admits] = everybody,
    ) -> None:
        self.limit = limit
        self.waiting: list[Claim] = []
        self.served: list[Claim] = []
        self._quantum = quantum
        self._patience = patience
        self._spare = spare
        self._admission = admission
        self._arrivals = count()
        self._round = 0
        self._impatience = 0

    def claim(self, rank: int, order: int = 0, party: Hashable = None) -> Claim:
        """Put a claim in the line. ``rank`` 0 is the most urgent one.

        ``order`` puts claims of one rank and round in a row whose arrival is a matter of chance.
        """
        claim = Claim(rank, order, next(self._arrivals), party, self._round + 1)
        claim.overtaken = any(each.rank > URGENT for each in self.served)
        self.waiting.append(claim)
        return claim

    def hurry(self, party: Hashable, rank: int) -> None:
        """Hold the claims of a party for as urgent as ``rank``, if they were less so."""
        for claim in (*self.waiting, *self.served):
            if claim.party == party:
                claim.rank = min(claim.rank, rank)

    def leave(self, claim: Claim) -> None:
        """Take a claim out of the line, or its slot from it; further calls do nothing."""
        for claims in (self.waiting, self.served):
            if claim in claims:
                claims.remove(claim)

    def serve(self) -> list[Claim]:
        """Give the free slots to those whose turn it is; returns them."""
        begun: list[Claim] = []
        while any(map(self._is_free_for, self.waiting)):
            admitted = self._admitted()
            claim = next(filter(self._is_free_for, self._line(admitted)), None)
            if claim is None:
                break
            if claim is self._oldest(admitted):
                self._impatience = -1
            self.waiting.remove(claim)
            self.served.append(claim)
            self._close_round(claim)
            self._count(claim)
            begun.append(claim)
        return begun

    def _admitted(self) -> list[Claim]:
        return list(filter(self._admission(self.served), self.waiting))

    def _is_free_for(self, claim: Claim) -> bool:
        return len(self.served) < self.limit + (self._spare if claim.rank == URGENT else 0)

    def goes_on(self, claim: Claim) -> bool:
        """Whether who is served may begin another service; if not, it is to leave.

        Each one that leaves makes room for one who waits: two do not leave for the same.
        """
        if claim not in self.served:
            return False
        staying = [each for each in self.served if each is claim or not each.makes_room]
        room = self.limit - len(staying)
        line = self._line(self._admitted())
        if room < 0:
            leaves = claim is max(staying, key=lambda each: (each.rank, each.arrival))
        else:
            leaves = room < len(line) and self._gives_way(claim, line[room], is_first=not room)
        if leaves:
            claim.makes_room = True
            return False
        self._count(claim)
        return True

    def _gives_way(self, claim: Claim, other: Claim, *, is_first: bool) -> bool:
        if other.rank == claim.rank:
            return claim.used >= self._quantum
        return other.rank < claim.rank or (is_first and self._favours_oldest())

    def _line(self, waiting: list[Claim]) -> list[Claim]:
        """Those who wait, in the order of service."""
        line = sorted(waiting, key=lambda each: (each.rank, each.round, each.order, each.arrival))
        if line and self._favours_oldest():
            oldest = self._oldest(line)
            line.remove(oldest)
            line.insert(0, oldest)
        return line

    def _oldest(self, waiting: list[Claim]) -> Claim:
        return min(waiting, key=lambda each: each.arrival)

    def _favours_oldest(self) -> bool:
        spent = any(each.rank == URGENT and each.overtaken for each in self.waiting)
        return self._impatience >= self._patience and not spent

    def _close_round(self, claim: Claim) -> None:
        """The party of a claim has had its turn in this round."""
        self._round = max(self._round, claim.round)
        for each in self.waiting:
            if (each.rank, each.party) == (claim.rank, claim.party):
                each.round = max(each.round, claim.round + 1)

    def _count(self, claim: Claim) -> None:
        """One more service begins."""
        claim.used += 1
        self._impatience = self._impatience + 1 if self.waiting else 0
        if claim.rank > URGENT:
            for each in self.waiting:
                each.overtaken = True
