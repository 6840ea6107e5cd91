"""Walk through many sites at random and fast, with moves of some kinds alone in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from proxy.fsm import IllegalEvent
from proxy.simulation.machines.moves import ALWAYS, Move, all_moves, answers, ties
from proxy.simulation.machines.rules import Rules
from proxy.simulation.machines.rules import steps as steps_of
from proxy.simulation.machines.site import Site
from proxy.simulation.machines.tasks import Broken

SHARE: Final = 0.5
"""How often a kind of moves is among those of a site."""
WORK, AFTER = 0.9, 0.5
"""How often a dispatch or delivery that waits for an answer is given one; and after another move:
requests come together, and half of them are of one kind."""

TIE: Final = 0.2
"""How often a request is followed by an answer that came in the same instant."""


@dataclass
class Walked:
    """What a walk came to: the steps of machines, and the first failure, if there is any.

    The rules' charts know which rows were taken.
    """

    steps: int = 0
    sites: int = 0
    moves: list[Move] = field(default_factory=list)
    error: str | None = None


class _Mood:
    """The moves that are made at one site."""

    def __init__(self, rules: Rules, random: Random) -> None:
        self.random = random
        self.limits = rules.limits
        self.answers, self.ties = answers(rules.limits), ties(rules.limits)
        first = 1 + rules.limits.nodes
        self.work = -1 << first
        self._waiting: dict[int, list[int]] = {}
        self.kinds: dict[str, list[Move]] = {}
        for move in all_moves(rules.limits):
            self.kinds.setdefault(move.kind, []).extend([move] * move.weight)
        for given, moves in enumerate(self.answers):  # the work is answered apart
            often = 1 if given else 8
            self.kinds[moves[0].kind] = moves[1:first] * often
            self.kinds["link"] += [moves[0]] * (often + 1)
        self.kinds["drain"] += self.kinds["time"]
        self.idle: Sequence[Move] = ()
        self.given: Sequence[int] = (0,)
        self.others: list[list[Move]] = []

    def change(self) -> None:
        """Choose the kinds of moves for the next site."""
        chance = self.random.random
        chosen = {kind for kind in self.kinds if kind in ALWAYS or chance() < SHARE}
        merged: dict[str, list[Move]] = {}
        for kind in self.kinds:
            if kind in chosen:
                merged.setdefault(kind.split()[0], []).extend(self.kinds[kind])
        self.others = [*merged.values()]
        if "link" in chosen:  # which has to do with nothing else
            self.others.append(self.kinds["link"])
        orders = self.kinds["like"] if "like" in chosen else []
        self.idle = [*self.kinds["order"], *orders, *self.kinds["time"]]
        others = [n for n in range(1, len(self.answers)) if f"answer {n}" in chosen]
        hoped = self.limits.hoped[int(chance() * len(self.limits.hoped))]
        self.given = [0] * hoped + others

    def walk(self, site: Site, made: list[Move]) -> None:
        """Make the moves at one site, each noted in ``made`` before."""
        chance = self.random.random
        idle, others, given, work = self.idle, self.others, self.given, self.work
        clock = site.clock
        some: Sequence[Move] = ()
        for _ in range(int(chance() * self.limits.moves)):
            if some and clock.asking and chance() < TIE:
                move = self._one_of(clock.asking, self.ties[int(chance() * len(self.ties))])
            elif chance() >= (AFTER if some else WORK):
                if not some or chance() < AFTER:
                    some = others[int(chance() * len(others))]
                move = some[int(chance() * len(some))]
            else:
                some = ()
                if asking := clock.asking & work:
                    move = self._one_of(asking, self.answers[given[int(chance() * len(given))]])
                else:
                    move = idle[int(chance() * len(idle))]
            made.append(move)
            move.do(site)
            if clock.moved or site.is_stopping:
                site.look()

    def _one_of(self, asking: int, moves: Sequence[Move]) -> Move:
        """Choose one of those who ask for an answer; return the move that gives it."""
        waiting = self._waiting.get(asking)
        if waiting is None:
            waiting = [n for n in range(asking.bit_length()) if asking >> n & 1]
            self._waiting[asking] = waiting
        return moves[waiting[int(self.random.random() * len(waiting))]]


def walk(rules: Rules, seed: int, steps: int) -> Walked:
    """Walk until the machines have made so many steps, or something does not hold."""
    walked, before = Walked(), steps_of(rules)
    mood = _Mood(rules, Random(seed))
    while walked.steps < steps:
        mood.change()
        made: list[Move] = []
        site = Site(rules)
        try:
            mood.walk(site, made)
            site.finish()
        except (Broken, IllegalEvent) as error:
            walked.moves, walked.error = made, str(error)
            return walked
        finally:
            walked.steps = steps_of(rules) - before
            walked.sites += 1
            site.abandon()
    return walked
