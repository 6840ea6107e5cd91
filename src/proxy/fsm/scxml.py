"""Write a machine as W3C SCXML, so that foreign tools can read, draw and execute it.

State Chart XML (SCXML), W3C Recommendation of 1 September 2015. Row ids and action names are
attributes of a namespace of ours, which the Recommendation lets other tools pass over (1.2). An
ignored cell is no transition: SCXML, too, lets an event that matches none do nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar
from xml.sax.saxutils import quoteattr

from proxy.fsm.draw import action_name, word
from proxy.fsm.kernel import Machine
from proxy.fsm.table import Row

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
        tag = "final" if state in machine.final else "state"
        rows = [row for row in machine.rows if state in row.sources]
        means = f'  <{tag} id="{word(state.name)}" table:means={quoteattr(str(state.value))}'
        if not rows:
            lines.append(f"{means}/>")
            continue
        lines += [f"{means}>", *(_transition(row) for row in rows), f"  </{tag}>"]
    return "\n".join([*lines, "</scxml>"]) + "\n"


def _transition(row: Row[S, D, O]) -> str:
    target = f' target="{word(row.target.name)}"' if row.target is not None else ""
    action = action_name(row)
    does = f' table:action="{action}"' if action else ""
    event = f'event="{word(row.on.__name__)}"'
    return f'    <transition {event}{target} table:row="{word(row.id)}"{does}/>'
