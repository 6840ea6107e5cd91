"""The moves of a site: a list of them is all that is drawn, so a failure is a list of moves.

Every move may come at any time; one that has nothing to do does nothing. So each move of a list
keeps its meaning where others are left out, which is what makes a list shrink well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from proxy.fsm import IllegalEvent
from proxy.machines.operation import PauseLock
from proxy.nodes import Effect
from proxy.simulation.machines.rules import Limits, Rules
from proxy.simulation.machines.site import Site
from proxy.simulation.machines.tasks import Broken

ANSWERS: Final = 8
"""So many answers the world may give: 0 is what one hopes for, the others are for the activity."""

ALWAYS: Final = frozenset({"order", "answer", "time"})
"""The kinds of moves without which nothing happens."""


class Move(NamedTuple):
    """One move of a ``kind``; ``weight`` is how often it is drawn beside the others."""

    text: str
    kind: str
    weight: int
    do: Callable[[Site], object]

    def __repr__(self) -> str:
        """Return what a list of moves is read by."""
        return self.text


def all_moves(limits: Limits) -> tuple[Move, ...]:
    """Return every move, the plainest first."""
    return (*_plain(limits), *_requests(limits), *_answers(limits))


def answers(limits: Limits) -> list[list[Move]]:
    """Return the moves that answer: by the answer, then by the actor."""
    names = [*_actors(limits)]
    return [[_answer(n, name, given) for n, name in enumerate(names)] for given in range(ANSWERS)]


def ties(limits: Limits) -> list[list[Move]]:
    """Return the moves that answer before anybody has a turn: by the answer, then by the actor."""
    names = [*_actors(limits)]
    return [[_tie(n, name, given) for n, name in enumerate(names)] for given in range(ANSWERS)]


def _plain(limits: Limits) -> Iterator[Move]:
    for nodes in range(1, 1 << limits.nodes):
        for rank in (2, 0):
            text = f"order to nodes {nodes:0{limits.nodes}b}, rank {rank}"
            yield Move(text, "order", 3, _ordered(nodes, rank))
    yield from answers(limits)[0]
    yield Move("the next limit is over", "time", 12, Site.time_out)
    yield Move("all have their turn", "time", 4, Site.settle)


def _requests(limits: Limits) -> Iterator[Move]:
    for lock in PauseLock:
        yield Move(f"pause by {lock.value}", "pause", 2, partial(Site.pause, lock=lock))
        yield Move(f"resume by {lock.value}", "pause", 4, partial(Site.resume, lock=lock))
    for node_id in "abcdefgh"[: limits.nodes]:
        for effect in Effect:
            do = partial(Site.change, node_id=node_id, effect=effect)
            yield Move(f"node {node_id}: {effect.value}", "node", 2, do)
        yield Move(f"node {node_id} is added", "node", 4, partial(Site.add, node_id=node_id))
    for slot in range(limits.slots):
        for is_whole, what in ((True, "the entity"), (False, "a part of the entity")):
            do = partial(Site.delete, slot=slot, is_whole=is_whole)
            yield Move(f"{what} of order {slot} is deleted", "delete", 2, do)
        for nodes in range(1, 1 << limits.nodes):
            text = f"order like {slot} to nodes {nodes:0{limits.nodes}b}"
            yield Move(text, "like", 2, _ordered(nodes, slot % 2, slot))
        for to_all, where in ((False, ""), (True, ", to all nodes")):
            do = partial(Site.order_again, slot=slot, to_all=to_all)
            yield Move(f"order {slot} again{where}", "again", 2, do)
    yield Move("signal", "drain", 4, Site.drain)
    yield Move("crash", "crash", 2, Site.crash)
    yield Move("connect", "link", 6, Site.connect)
    yield Move("close the link", "link", 4, Site.close)


def _answers(limits: Limits) -> Iterator[Move]:
    for of_all in answers(limits)[1:]:
        yield from of_all
    for of_all in ties(limits):
        yield from of_all


def _answer(actor: int, name: str, given: int) -> Move:
    if given == 0:
        return Move(f"{name} is answered", "answer", 8, _answered(actor, given))
    return Move(f"{name} is answered {given}", f"answer {given}", 1, _answered(actor, given))


def _tie(actor: int, name: str, given: int) -> Move:
    text = f"{name} is answered {given} first"
    return Move(text, f"first {given}", 1, _answered_first(actor, given))


def _actors(limits: Limits) -> Iterator[str]:
    """The names of the site's actors, in their order."""
    node_ids = "abcdefgh"[: limits.nodes]
    yield "the connection"
    for node_id in node_ids:
        yield f"node {node_id}"
    for slot in range(limits.slots):
        yield f"dispatch {slot}"
        for node_id in node_ids:
            yield f"delivery {slot} to {node_id}"


def _ordered(nodes: int, rank: int, like: int | None = None) -> Callable[[Site], None]:
    return lambda site: site.order(nodes, rank, like)


def _answered(actor: int, given: int) -> Callable[[Site], None]:
    return lambda site: site.answer(actor, given)


def _answered_first(actor: int, given: int) -> Callable[[Site], None]:
    return lambda site: site.answer_first(actor, given)


def play(rules: Rules, moves: Iterable[Move], story: list[str] | None = None) -> None:
    """Make the moves at a new site, hold everything against what must be true, and let all end.

    Raises :class:`Broken` or :class:`proxy.fsm.IllegalEvent`. ``story`` is given a line for each
    move and each step.
    """
    site = Site(rules, story)
    try:
        for move in moves:
            if story is not None:
                story.append(f"- {move}")
            move.do(site)
            site.look()
        site.finish()
    finally:
        site.abandon()


def found(rules: Rules, moves: Iterable[Move]) -> str | None:
    """Return what does not hold where the moves are made; None where everything does."""
    try:
        play(rules, moves)
    except (Broken, IllegalEvent) as error:
        return str(error)
    return None


def shrunk(rules: Rules, moves: list[Move]) -> list[Move]:
    """Return a shorter list in which something still does not hold: no move of it can be left out.

    ``moves`` is one of which :func:`found` finds something.
    """
    length = max(len(moves) // 2, 1)
    while True:
        at, before = 0, len(moves)
        while at < len(moves):
            fewer = moves[:at] + moves[at + length :]
            if found(rules, fewer) is None:
                at += length
            else:
                moves = fewer
        if length > 1:
            length //= 2
        elif len(moves) == before:
            return moves


def told(rules: Rules, moves: Iterable[Move]) -> list[str]:
    """Return the story of some moves: each, the steps that it led to, and what does not hold."""
    story: list[str] = []
    try:
        play(rules, moves, story)
    except (Broken, IllegalEvent) as error:
        story.append(f"! {error}")
    return story
