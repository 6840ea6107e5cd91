"""Steering: worlds are drawn so that they come to the rows and marks that were seldom reached.

After each round of worlds, the rows and marks that fewer than one world in a hundred has reached
are **aims**. Every other world of the next round has one of them, and strikes where the tables of
the machines say that it begins: in the states which the row leads out of, and in those before.
An aim is part of what is drawn: the same seed with the same aim draws the same scenario.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, NamedTuple

from proxy.fsm import Event, Machine, Row
from proxy.machines import MACHINES
from proxy.runtime.marks import Mark

RARE = 0.01
"""What a smaller share of the worlds has reached is aimed at."""

UNREACHABLE = {
    "CON-20": "the link's activity would have to have a defect",
    "NOD-13": "the C-ECHO's activity would have to have a defect",
    "NOD-14": "the C-ECHO's activity would have to have a defect",
}
"""The rows that no world reaches, and why: a simulated world breaks nothing inside the program."""

BUSY = ("delivery STORING", "DLV-03", Mark.INSTANCE_SENT.name, "dispatch FETCHING")
"""Moments at which work is under way: what begins in a first state, or at a mark, begins there."""


class Lead(NamedTuple):
    """A way to an aim: the moment to strike at, and the event that is wanted then, if any."""

    moment: str
    event: type[Event] | None


AnyRow = Row[Any, Any, Any]
ROWS: dict[str, tuple[Machine[Any, Any, Any], AnyRow]] = {
    row.id: (machine, row) for machine in MACHINES for row in machine.rows
}
AIMS = (*ROWS, *(mark.name for mark in Mark))
"""All that can be aimed at: rows by their ids, and marks by their names."""


def moments() -> tuple[str, ...]:
    """Return every moment that can be struck at: marks, and states that a machine comes into.

    A row's id is a moment as well.
    """
    states = (
        f"{machine.name} {definition.state.name}"
        for machine in MACHINES
        for definition in machine.definitions
        if any(row.target is definition.state for row in machine.rows)
    )
    return (*(mark.name for mark in Mark), *states)


def rare(reached: Mapping[str, int], worlds: int) -> tuple[str, ...]:
    """Return what too few of so many worlds have reached, the rarest first."""
    few = [aim for aim in AIMS if reached.get(aim, 0) < RARE * worlds and aim not in UNREACHABLE]
    return tuple(sorted(few, key=lambda aim: reached.get(aim, 0)))


def aim_of(seed: int, aims: Sequence[str]) -> str:
    """Return the aim of the world of a seed, "" for none: every other world has one."""
    return aims[seed // 2 % len(aims)] if aims and seed % 2 else ""


def strikes_for(aim: str, rng: Random) -> list[Lead]:
    """Choose the moments of one world with this aim: one or two at it, and those on the way."""
    if aim not in ROWS:
        return [Lead(rng.choice((aim, *BUSY)), None) for _ in range(3)]
    at, before = _leads(aim)
    chosen = [rng.choice(at) for _ in range(rng.choice([1, 2, 2]))]
    for _ in range(rng.choice([0, 1, 2]) if before else 0):
        lead = rng.choice(before)
        chosen.append(lead._replace(moment=rng.choice(BUSY)) if rng.random() < 0.6 else lead)
    return chosen


@cache
def _leads(aim: str) -> tuple[tuple[Lead, ...], tuple[Lead, ...]]:
    """Return the leads to a row from the states that it leaves, and into those states."""
    machine, row = ROWS[aim]
    into = [
        each
        for each in machine.rows
        if each.id != aim and each.target in row.sources and each.id not in UNREACHABLE
    ]
    moments = [_entered(machine, state) for state in row.sources] + [each.id for each in into]
    at = _in_all(moments, row)
    before: list[Lead] = []
    for each in into:
        before += _in_all([_entered(machine, state) for state in each.sources], each)
    return tuple(at), tuple(before)


def _entered(machine: Machine[Any, Any, Any], state: object) -> str:
    """Return the moment at which a machine comes into a state; "" for one that it begins in."""
    is_entered = any(row.target is state for row in machine.rows)
    return f"{machine.name} {state.name}" if is_entered else ""  # type: ignore[attr-defined]


def _in_all(moments: Iterable[str], row: AnyRow) -> list[Lead]:
    """Return the leads for a row's events at some moments."""
    at = [moment for moment in dict.fromkeys(moments) if moment] or BUSY
    return [Lead(moment, event) for moment in at for event in row.on]
