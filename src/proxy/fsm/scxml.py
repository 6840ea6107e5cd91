"""Write a machine as W3C SCXML, so that foreign tools can read, draw and execute it.

State Chart XML (SCXML), W3C Recommendation of 1 September 2015. A group is a compound state, and a
row of all its states is one transition of the compound state. A group of final states alone is left
out, because in SCXML only a final state at the top ends the machine. Row ids and action names are
attributes of a namespace of ours, which the Recommendation lets other tools pass over (1.2). An
ignored cell is no transition: SCXML, too, lets an event that matches none do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TypeVar
from xml.sax.saxutils import quoteattr

from proxy.fsm.draw import action_name, word
from proxy.fsm.kernel import Machine
from proxy.fsm.table import Event, Group, Row, Stay

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output


def scxml(machine: Machine[S, D, O]) -> str:
    """Return the machine as an SCXML document with the null data model."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<scxml xmlns="http://www.w3.org/2005/07/scxml" xmlns:table="urn:ith-proxy:table"',
        f'       version="1.0" datamodel="null" name="{word(machine.name)}"',
        f'       initial="{word(machine.initial.name)}">',
    ]
    for state in machine.states:
        group = machine.group(state)
        if group is None or machine.final >= {*group}:
            lines += _state(machine, state)
        elif state is group[0]:
            lines += _compound(machine, group)
    return "\n".join([*lines, "</scxml>"]) + "\n"


def _compound(machine: Machine[S, D, O], group: Group[S]) -> Iterator[str]:
    initial = machine.initial if machine.initial in group else group[0]
    yield (
        f'  <state id="{word(group.name)}" initial="{word(initial.name)}" '
        f"table:means={quoteattr(group.doc)}>"
    )
    yield from _transitions(machine, group)
    for state in group:
        yield from (f"  {line}" for line in _state(machine, state))
    yield "  </state>"


def _state(machine: Machine[S, D, O], state: S) -> Iterator[str]:
    tag = "final" if state in machine.final else "state"
    head = f'  <{tag} id="{word(state.name)}" table:means={quoteattr(str(state.value))}'
    steps = [*_transitions(machine, (state,))]
    yield from [f"{head}>", *steps, f"  </{tag}>"] if steps else [f"{head}/>"]


def _transitions(machine: Machine[S, D, O], states: tuple[S, ...]) -> Iterator[str]:
    """Write the rows that all of ``states`` share, except those of a compound state."""
    for row in machine.rows:
        events = [on for on in row.on if _place(machine, row, states[0], on) == states]
        if events:
            yield _transition(row, events)


def _place(
    machine: Machine[S, D, O], row: Row[S, D, O], state: S, event: type[Event]
) -> tuple[S, ...] | None:
    """Return the place of the row's transition for this cell: its complete group, or the state.

    A row that yields is written for the complete group if all entries that it yields to are
    transitions: in SCXML the transition of a state comes before that of its compound state.
    """
    claimed = {source for source, on in machine.claimed(row) if on is event}
    group = machine.group(state)
    if group and row.otherwise and claimed & {*group} and {*row.sources} >= {*group}:
        cells = (machine.cells.get((source, event)) for source in group)
        if all(isinstance(cell, Row) for cell in cells):
            return group
    if group and claimed >= {*group}:
        return group
    return (state,) if state in claimed else None


def _transition(row: Row[S, D, O], events: Iterable[type[Event]]) -> str:
    target = "" if isinstance(row.target, Stay) else f' target="{word(row.target.name)}"'
    action = action_name(row)
    does = f' table:action="{action}"' if action else ""
    event = f'event="{" ".join(word(event.__name__) for event in events)}"'
    return f'    <transition {event}{target} table:row="{word(row.id)}"{does}/>'
