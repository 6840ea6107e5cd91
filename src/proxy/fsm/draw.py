"""Draw a machine as a Mermaid state diagram that a person reads in five minutes.

The picture carries only ids and identifiers; sentences are in the tables (``proxy.fsm.page``).
What leaves a state is an arrow; what happens while staying, and the activity, stands in the
state's box, as in UML; what happens so in every state but the final ones, once in a note. Rows
between the same two states share one arrow. Where several states
share several rows, a junction (a small diamond) gathers them: each arrow out of it may be taken
from each state that leads into it. The order is that of the declarations, so the same table
always gives the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import TypeAlias, TypeVar

from proxy.fsm.kernel import Machine
from proxy.fsm.table import Row

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

Arrows: TypeAlias = dict[tuple[str, str], list[str]]
"""From where and to where, and the labels on the arrow: none into a junction."""

_SMALL = '%%{init: {"themeVariables": {"fontSize": "13px"}}}%%'
"""So that an id and a long name still fit the width at which Mermaid breaks a label."""

EVERYWHERE = "in every state that is not final"
"""What a note begins with."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z0-9]+)?")


def word(text: str) -> str:
    """Return ``text`` if it is an identifier or a row id; Mermaid misreads almost all else.

    A ``;`` in a label, for one, silently makes new states. Raises ``ValueError``.
    """
    if not _WORD.fullmatch(text):
        raise ValueError(f"{text!r} cannot be drawn: it is neither an identifier nor an id")
    return text


def action_name(row: Row[S, D, O]) -> str | None:
    """Return the name of the row's action; None if it has none."""
    return word(getattr(row.action, "__name__", repr(row.action))) if row.action else None


def mermaid(machine: Machine[S, D, O]) -> str:
    """Return the diagram as the text of a Mermaid ``stateDiagram-v2``."""
    lines = [_SMALL, "stateDiagram-v2"]
    for state in machine.states:
        lines += _box(machine, state)
    lines += _note(machine)
    found, every = arrows(machine)
    lines += [f"state {junction} <<choice>>" for junction in found]
    lines.append(f"[*] --> {word(machine.initial.name)}")
    for (source, target), labels in every.items():
        lines.append(f"{source} --> {target}" + (f" : {'<br/>'.join(labels)}" if labels else ""))
    lines += [f"{word(state.name)} --> [*]" for state in machine.states if state in machine.final]
    return "\n".join(lines) + "\n"


def arrows(machine: Machine[S, D, O]) -> tuple[dict[str, frozenset[S]], Arrows]:
    """Return the junctions, each with the states it gathers, and every arrow."""
    junctions = {f"junction_{n}": group for n, group in enumerate(_groups(machine.rows), 1)}
    found: Arrows = {
        (word(state.name), junction): []
        for junction, group in junctions.items()
        for state in machine.states
        if state in group
    }
    for row in machine.rows:
        if row.target is None:
            continue
        left = _moved(row)
        starts = []
        for junction, group in junctions.items():
            if _gathers(group, row, left):
                starts.append(junction)
                left -= group
        starts += [word(state.name) for state in row.sources if state in left]
        for start in starts:
            label = f"{word(row.id)} {word(row.on.__name__)}"
            found.setdefault((start, word(row.target.name)), []).append(label)
    return junctions, found


def _groups(rows: Iterable[Row[S, D, O]]) -> list[frozenset[S]]:
    """Choose the sets of states that a junction draws with fewer arrows, the best first."""
    rows = [row for row in rows if _moved(row)]
    left = {row.id: _moved(row) for row in rows}
    candidates = dict.fromkeys(frozenset(_moved(row)) for row in rows)
    chosen: list[frozenset[S]] = []

    def saving(group: frozenset[S]) -> int:
        targets = {row.target for row in rows if _gathers(group, row, left[row.id])}
        return len(group) * len(targets) - len(group) - len(targets)

    while True:
        best = max(candidates, key=lambda group: (saving(group), len(group)), default=frozenset())
        if saving(best) <= 0:
            return chosen
        chosen.append(best)
        del candidates[best]
        for row in rows:
            if _gathers(best, row, left[row.id]):
                left[row.id] -= best


def _moved(row: Row[S, D, O]) -> set[S]:
    """The states that the row leaves; in its target, if that is a source too, it stays."""
    return set() if row.target is None else {*row.sources} - {row.target}


def _gathers(group: frozenset[S], row: Row[S, D, O], left: set[S]) -> bool:
    """Whether ``row``, from the sources that are ``left``, can be drawn from the junction."""
    return group <= left and row.target not in group


def _box(machine: Machine[S, D, O], state: S) -> list[str]:
    name = word(state.name)
    activity = machine.activity(state)
    inside = [f"do / {word(activity)}"] if activity else []
    inside += [
        _happens(row)
        for row in machine.rows
        if state in row.sources and row.target in {None, state} and not _is_everywhere(machine, row)
    ]
    return [f'state "{name}" as {name}', *(f"{name} : {line}" for line in inside)]


def _note(machine: Machine[S, D, O]) -> list[str]:
    rows = [row for row in machine.rows if _is_everywhere(machine, row)]
    if not rows:
        return []
    head = f"note right of {word(machine.initial.name)}"
    return [head, EVERYWHERE, *map(_happens, rows), "end note"]


def _is_everywhere(machine: Machine[S, D, O], row: Row[S, D, O]) -> bool:
    """Whether the machine stays where it is on this row, in every state that is not final."""
    return row.target is None and {*row.sources} == {*machine.states} - machine.final


def _happens(row: Row[S, D, O]) -> str:
    action = action_name(row)
    return f"{word(row.id)} {word(row.on.__name__)}" + (f" / {action}" if action else "")
